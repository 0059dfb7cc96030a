//! The network service
