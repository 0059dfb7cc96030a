//! The usage service
