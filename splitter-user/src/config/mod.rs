//! The configuration file: TOML as written, then the validated model.
