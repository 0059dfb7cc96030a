//! The agent service
