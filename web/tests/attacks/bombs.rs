//! Small files that would become large pictures, and large requests.

use std::io::Write;

use crate::client::{Attack, FORM, SEARCH, Server, attack, encoded, png};

/// Too many pixels, or a file that cannot be one of that size.
const TOO_LARGE: &[u16] = &[413];
const NO_PICTURE: &[u16] = &[400, 413];

fn be(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// A PNG whose header says another size.
fn png_of(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = png(0);
    bytes[16..20].copy_from_slice(&be(width));
    bytes[20..24].copy_from_slice(&be(height));
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&be(crc));
    bytes
}

/// A PNG with so many pixels that are all there, in a few kilobytes: white, or nearly so.
fn white_png(side: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let encoder = image::codecs::png::PngEncoder::new_with_quality(
        &mut bytes,
        image::codecs::png::CompressionType::Best,
        image::codecs::png::FilterType::NoFilter,
    );
    image::GrayImage::new(side, side).write_with_encoder(encoder).expect("encodes");
    bytes.into_inner()
}

fn jpeg_of(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = encoded(0, image::ImageFormat::Jpeg);
    let frame = bytes.windows(2).position(|two| two == [0xff, 0xc0]).expect("a frame");
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

fn bmp_of(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = encoded(0, image::ImageFormat::Bmp);
    bytes[18..22].copy_from_slice(&width.to_le_bytes());
    bytes[22..26].copy_from_slice(&height.to_le_bytes());
    bytes
}

fn gif_of(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = encoded(0, image::ImageFormat::Gif);
    bytes[6..8].copy_from_slice(&width.to_le_bytes());
    bytes[8..10].copy_from_slice(&height.to_le_bytes());
    // The first frame too.
    if let Some(frame) = bytes.iter().position(|&byte| byte == b',') {
        bytes[frame + 5..frame + 7].copy_from_slice(&width.to_le_bytes());
        bytes[frame + 7..frame + 9].copy_from_slice(&height.to_le_bytes());
    }
    bytes
}

/// A lossless WebP whose header says 16383 x 16383, one less than the most.
fn webp() -> Vec<u8> {
    let mut bytes = encoded(0, image::ImageFormat::WebP);
    let at = bytes.windows(4).position(|four| four == b"VP8L").expect("lossless") + 9;
    let size = (u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        & 0xf000_0000)
        | 0x3ffe
        | (0x3ffe << 14);
    bytes[at..at + 4].copy_from_slice(&size.to_le_bytes());
    bytes
}

/// An extended WebP with a canvas of 2^24 x 2^24.
fn webp_canvas() -> Vec<u8> {
    let mut bytes = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0".to_vec();
    bytes.extend([0xff; 6]);
    bytes
}

/// A TIFF of zeros that are not there.
fn tiff_of(side: u32) -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    let entries: [(u16, u16, u32); 9] = [
        (256, 4, side),
        (257, 4, side),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, side),
        (279, 4, side.wrapping_mul(side)),
    ];
    bytes.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes
}

pub fn table(server: &Server) -> Vec<Attack> {
    let bomb =
        |name: &str, file: &[u8], expected| attack(name, server.upload(SEARCH, file), expected);
    let mut qoi = b"qoif".to_vec();
    qoi.extend([be(100_000), be(100_000)].concat());
    qoi.extend([3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let mut attacks = vec![
        bomb("PNG of 60000 x 60000", &png_of(60_000, 60_000), TOO_LARGE),
        bomb("PNG of 2^31 x 2^31", &png_of(0x7fff_ffff, 0x7fff_ffff), NO_PICTURE),
        bomb("PNG of 0 x 0", &png_of(0, 0), NO_PICTURE),
        bomb("PNG of 12000 x 12000 that is all there", &white_png(12_000), TOO_LARGE),
        // As large as is allowed: it may be searched with, and what it took is given back.
        bomb("PNG of 9900 x 9900 that is all there", &white_png(9900), &[200, 413]),
        bomb("JPEG of 65500 x 65500", &jpeg_of(65_500, 65_500), TOO_LARGE),
        bomb("BMP of 100000 x 100000", &bmp_of(100_000, 100_000), NO_PICTURE),
        bomb("BMP of 30000 x 30000", &bmp_of(30_000, 30_000), NO_PICTURE),
        bomb("GIF of 65535 x 65535", &gif_of(65_535, 65_535), TOO_LARGE),
        bomb("WebP of 16383 x 16383", &webp(), TOO_LARGE),
        bomb("WebP canvas of 2^24 x 2^24", &webp_canvas(), NO_PICTURE),
        bomb("TIFF of 60000 x 60000", &tiff_of(60_000), NO_PICTURE),
        bomb("PNM of 100000 x 100000", b"P6 100000 100000 255\n0", NO_PICTURE),
        bomb("PNM of numbers without an end", &[b"P3 ", &[b'9'; 100_000][..]].concat(), NO_PICTURE),
        bomb("QOI of 100000 x 100000", &qoi, NO_PICTURE),
        bomb(
            "HDR of 100000 x 100000",
            b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 100000 +X 100000\n",
            NO_PICTURE,
        ),
        bomb("farbfeld of 100000 x 100000", b"farbfeld\0\x01\x86\xa0\0\x01\x86\xa0", NO_PICTURE),
        bomb(
            "ICO that points behind its end",
            b"\0\0\x01\0\x01\0\0\0\0\0\x01\0\x20\0\xff\xff\xff\x7f\x16\0\0\0",
            NO_PICTURE,
        ),
        bomb("nothing", b"", NO_PICTURE),
    ];
    for (name, file) in [("PNG", png(0)), ("JPEG", encoded(0, image::ImageFormat::Jpeg))] {
        for part in [1, 8, 20, file.len() / 2] {
            let cut = file.get(..part).unwrap_or_default();
            // What is cut late may still be shown in part.
            attacks.push(bomb(&format!("{name} cut after {part} bytes"), cut, &[200, 400]));
        }
    }
    attacks
}

/// A gigabyte: refused before it is sent when it is announced, and at the limit when it is not.
pub fn gigabyte(server: &Server) {
    let (name, value) = FORM;
    let head = |length: &str| {
        format!(
            "POST {SEARCH} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{name}: {value}\r\n{length}\r\n\r\n",
            server.host()
        )
    };
    let before = server.resident();
    let block = vec![b'x'; 1 << 20];
    for (length, is_chunked) in
        [("content-length: 1073741824", false), ("transfer-encoding: chunked", true)]
    {
        let mut sent = 0;
        let reply = server.converse(|stream| {
            stream.write_all(head(length).as_bytes())?;
            for _ in 0..1024 {
                if is_chunked {
                    stream.write_all(b"100000\r\n")?;
                }
                stream.write_all(&block)?;
                if is_chunked {
                    stream.write_all(b"\r\n")?;
                }
                sent += block.len();
            }
            Ok(())
        });
        assert_eq!(
            (reply.status, reply.json()["code"].as_str()),
            (413, Some("body_too_large")),
            "{length}: {reply:?}"
        );
        assert!(sent < 200 << 20, "{length}: {sent} bytes were taken");
    }
    let after = server.resident();
    assert!(after < before + (150 << 20), "{before} bytes before, {after} after");
    server.is_alive().expect("alive");
}
