//! A data plane in memory, for tests.
