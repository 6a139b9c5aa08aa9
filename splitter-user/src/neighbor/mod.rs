//! Routes and MAC addresses over netlink.
