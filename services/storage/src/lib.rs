//! The storage service
