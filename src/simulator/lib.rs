//! kero-simulator
