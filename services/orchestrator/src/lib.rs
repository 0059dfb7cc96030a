//! The orchestrator service
