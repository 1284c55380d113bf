//! A QR code in the terminal: two rows of modules per line, in half blocks.

use anyhow::Context;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// Dark modules are drawn as blanks, because most terminals are dark; phones read both.
pub fn render(text: &str) -> anyhow::Result<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).context("the code is too long for a QR code")?;
    Ok(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).quiet_zone(true).build())
}

#[cfg(test)]
mod tests {
    #[test]
    fn draws_half_blocks() {
        let drawn = super::render("2@reference,key,key,secret").unwrap();
        assert!(drawn.contains('▀') && drawn.contains('█') && drawn.lines().count() > 10);
    }
}
