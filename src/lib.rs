//! Kero
