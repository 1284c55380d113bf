//! kero-telemetry
