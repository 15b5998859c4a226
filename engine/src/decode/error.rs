//! Why a file gave no picture.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use super::Format;

/// Why a file gave no picture, by whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The file: it has no content.
    #[error("file is empty")]
    Empty,
    /// The file: it is no picture that this crate has heard of.
    #[error("not a picture: looks like {looks_like}")]
    UnknownFormat {
        /// What the first bytes suggest, for instance `a text file`.
        looks_like: String,
    },
    /// This build: the picture is of a kind it does not decode.
    #[error("{format} is not supported; {remedy}")]
    UnsupportedFormat {
        /// The format, with the feature of it that is missing where only that is.
        format: String,
        /// What the user can do.
        remedy: &'static str,
    },
    /// The limits: decoding would cost more than allowed.
    #[error("{what} {}, limit is {}; {}", what.show(*value), what.show(*limit), what.remedy())]
    TooLarge {
        /// What was measured.
        what: Measure,
        /// Its value, in the unit of the limit.
        value: u64,
        /// The limit it exceeds.
        limit: u64,
    },
    /// The file: it starts like a picture but breaks the rules of its format.
    #[error("damaged {format}: {reason}")]
    Damaged {
        /// The format.
        format: Format,
        /// What the decoder met.
        reason: String,
    },
    /// The limits: decoding took longer than allowed.
    #[error("decoding took more than {} s; scale the picture down", limit.as_secs_f64())]
    TooSlow {
        /// The time allowed.
        limit: Duration,
    },
    /// The decoder: it panicked on this file.
    #[error("the {format} decoder failed on this file: {reason}")]
    Panicked {
        /// The format.
        format: Format,
        /// The panic message.
        reason: String,
    },
}

/// What a limit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Measure {
    /// Length of the file in bytes.
    Bytes,
    /// Width × height of the picture.
    Pixels {
        /// Declared width in pixels.
        width: u32,
        /// Declared height in pixels.
        height: u32,
    },
    /// Memory for decoding in bytes, estimated or as counted by the decoder when it gave up.
    Memory,
}

impl Measure {
    /// What a user can do; a program can raise [`DecodeLimits`](super::DecodeLimits).
    fn remedy(self) -> &'static str {
        match self {
            Self::Bytes => "compress the picture or scale it down",
            Self::Pixels { .. } | Self::Memory => "scale the picture down",
        }
    }

    fn show(self, value: u64) -> String {
        match self {
            Self::Bytes | Self::Memory => format!("{:.1} MiB", value as f64 / super::MIB as f64),
            Self::Pixels { .. } => format!("{:.1} Mpx", value as f64 / 1e6),
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes => f.write_str("file holds"),
            Self::Pixels { width, height } => write!(f, "picture is {width}×{height},"),
            Self::Memory => f.write_str("decoding needs at least"),
        }
    }
}

/// Advice for pictures whose format, or flavour of it, no build decodes.
pub(super) const CONVERT_FIRST: &str = "convert the picture to JPEG or PNG";

impl DecodeError {
    pub(super) fn damaged(format: Format, reason: impl fmt::Display) -> Self {
        Self::Damaged { format, reason: reason.to_string() }
    }

    pub(super) fn panicked(format: Format, payload: &(dyn Any + Send)) -> Self {
        let reason = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        Self::Panicked { format, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_value_limit_and_remedy() {
        let pixels = DecodeError::TooLarge {
            what: Measure::Pixels { width: 40_000, height: 30_000 },
            value: 1_200_000_000,
            limit: 100_000_000,
        };
        assert_eq!(
            pixels.to_string(),
            "picture is 40000×30000, 1200.0 Mpx, limit is 100.0 Mpx; scale the picture down"
        );
        let bytes = DecodeError::TooLarge { what: Measure::Bytes, value: 3 << 20, limit: 1 << 20 };
        let message = "file holds 3.0 MiB, limit is 1.0 MiB; compress the picture or scale it down";
        assert_eq!(bytes.to_string(), message);
        let slow = DecodeError::TooSlow { limit: Duration::from_millis(1500) };
        assert_eq!(slow.to_string(), "decoding took more than 1.5 s; scale the picture down");
    }

    #[test]
    fn panic_payloads_keep_their_text() {
        for payload in [Box::new("text") as Box<dyn Any + Send>, Box::new("text".to_owned())] {
            let error = DecodeError::panicked(Format::Gif, payload.as_ref());
            assert_eq!(error.to_string(), "the GIF decoder failed on this file: text");
        }
    }
}
