//! Servers and loads.
