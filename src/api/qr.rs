//! A QR code as a picture.

use kero_domain::{Fault, FaultCode};
use qrcode::render::svg;
use qrcode::{Color, EcLevel, QrCode};

/// Pixels per module, and the quiet zone in modules (the standard asks for 4).
const SCALE: usize = 8;
const QUIET: usize = 4;

fn encode(text: &str) -> Result<QrCode, Fault> {
    QrCode::with_error_correction_level(text.as_bytes(), EcLevel::M).map_err(|_| FaultCode::Internal.into())
}

/// A grey-scale PNG.
pub(crate) fn png(text: &str) -> Result<Vec<u8>, Fault> {
    let code = encode(text)?;
    let width = code.width();
    let modules = code.to_colors();
    let side = (width + 2 * QUIET) * SCALE;
    let mut pixels = vec![u8::MAX; side * side];
    for (index, color) in modules.iter().enumerate() {
        if *color == Color::Dark {
            let (x, y) = ((index % width + QUIET) * SCALE, (index / width + QUIET) * SCALE);
            for row in pixels.chunks_exact_mut(side).skip(y).take(SCALE) {
                if let Some(run) = row.get_mut(x..x + SCALE) {
                    run.fill(0);
                }
            }
        }
    }
    let side = u32::try_from(side).map_err(|_| FaultCode::Internal)?;
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels));
    written.map_err(|_| FaultCode::Internal)?;
    Ok(out)
}

/// An SVG picture.
pub(crate) fn svg(text: &str) -> Result<String, Fault> {
    Ok(encode(text)?.render::<svg::Color<'_>>().min_dimensions(256, 256).quiet_zone(true).build())
}

#[cfg(test)]
mod tests {
    #[test]
    fn draws_a_pairing_code() {
        let text = format!("2@{},{},{},{}", "a".repeat(80), "b".repeat(44), "c".repeat(44), "d".repeat(44));
        let png = super::png(&text).unwrap();
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() < 20_000, "{}", png.len());
        let mut reader = png::Decoder::new(std::io::Cursor::new(&png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(info.width, info.height);
        // the finder pattern's corner is dark, the quiet zone is light
        let at = |x: u32, y: u32| pixels[(y * info.width + x) as usize];
        assert_eq!((at(0, 0), at(33, 33)), (255, 0));
        assert!(super::svg(&text).unwrap().contains("<svg"));
    }
}
