//! What the marker segments of a JPEG say about its cost and completeness.

const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;

/// Facts that the decoder does not report.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Markers {
    /// Samples per pixel over all components, times the pixels of a full component, as a ratio:
    /// `(sum of h·v, max h · max v)`. Absent when no frame header was found.
    sampling: Option<(u64, u64)>,
    /// All coefficients are kept until the end: several scans make up the picture.
    buffered: bool,
    /// An end-of-image marker follows the first scan.
    pub has_end: bool,
}

impl Markers {
    /// Reads up to the first scan. Stops quietly at the first thing that is no marker segment;
    /// what is wrong with the file is for the decoder to say.
    pub fn scan(bytes: &[u8]) -> Self {
        let mut markers = Self::default();
        let mut components = 0;
        let mut rest = bytes.get(2..).unwrap_or_default();
        while let [0xff, marker, tail @ ..] = rest {
            if matches!(marker, 0x01 | 0xd0..=0xd8 | 0xff) {
                rest = if *marker == 0xff { &rest[1..] } else { tail };
                continue;
            }
            let Some((length, content)) = tail.split_first_chunk::<2>() else {
                break;
            };
            let length = usize::from(u16::from_be_bytes(*length)).saturating_sub(2);
            let Some((segment, next)) = content.split_at_checked(length) else {
                break;
            };
            match *marker {
                0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                    components = segment.get(5).copied().unwrap_or(0);
                    markers.sampling = sampling(segment);
                    markers.buffered = marker & 3 == 2;
                }
                START_OF_SCAN => {
                    markers.buffered |= segment.first().is_some_and(|count| *count < components);
                    // 0xff bytes of the scan itself are followed by 0, so this is no accident.
                    markers.has_end =
                        next.windows(2).rev().any(|pair| pair == [0xff, END_OF_IMAGE]);
                    break;
                }
                END_OF_IMAGE => break,
                _ => {}
            }
            rest = next;
        }
        markers
    }

    /// Bytes of the buffered 16-bit coefficients for a picture of `pixels`.
    pub fn coefficient_bytes(&self, pixels: u64) -> u64 {
        match self.sampling {
            Some((samples, full)) if self.buffered => 2 * pixels * samples / full,
            // Without a frame header nothing is known: count four full components.
            None => 8 * pixels,
            Some(_) => 0,
        }
    }
}

fn sampling(frame: &[u8]) -> Option<(u64, u64)> {
    let components = frame.get(6..)?.as_chunks::<3>().0;
    let factors = components.iter().map(|[_, hv, _]| (u64::from(hv >> 4), u64::from(hv & 15)));
    let sum = factors.clone().map(|(h, v)| h * v).sum();
    let widest = factors.clone().map(|(h, _)| h).max()?;
    let full = widest * factors.map(|(_, v)| v).max()?;
    (full > 0).then_some((sum, full))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(frame: u8, scan_components: u8, tail: &[u8]) -> Vec<u8> {
        let mut bytes = b"\xff\xd8\xff\xe1\0\x06\xff\xd9\xff\xd9\xff".to_vec();
        bytes.extend([frame, 0, 17, 8, 0, 16, 0, 16, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0]);
        bytes.extend([0xff, 0xda, 0, 3, scan_components]);
        bytes.extend(tail);
        bytes
    }

    #[test]
    fn baseline_needs_no_buffer_but_progressive_and_split_scans_do() {
        for (frame, scan, bytes) in [(0xc0, 3, 0), (0xc2, 3, 300), (0xc0, 1, 300)] {
            let markers = Markers::scan(&file(frame, scan, b"\x12\xff\xd9"));
            assert_eq!(markers.coefficient_bytes(100), bytes, "{frame:x} {scan}");
            assert!(markers.has_end);
        }
    }

    #[test]
    fn only_an_end_marker_after_the_scan_counts() {
        assert!(!Markers::scan(&file(0xc0, 3, b"\x12\xff\0\xd9")).has_end);
        assert!(Markers::scan(&file(0xc0, 3, b"\xff\xd9 and trailing bytes")).has_end);
        for length in 0..40 {
            assert!(!Markers::scan(&file(0xc0, 3, b"")[..length.min(33)]).has_end);
        }
    }
}
