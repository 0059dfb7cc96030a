//! Durable jobs: steps, undo, claims, idempotency
