//! The identity service
