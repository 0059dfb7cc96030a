//! Typed, scoped settings
