//! How much a pass needs: values in each buffer, bytes in all, and pieces that stay below the limits
//! of the libraries.

use std::ops::Range;

use super::super::config::{FfnKind, PATCH_SIZE, VitConfig};

/// Values in a row of patches: 588, filled up so that every row starts at a multiple of 16 bytes.
pub(crate) const PATCH_ROW: usize = (3 * PATCH_SIZE * PATCH_SIZE).next_multiple_of(8);

/// Scores of attention that are kept at once where it is computed in pieces. Libraries count in
/// 32-bit integers, so it may never reach 2^31; this much is 1 GiB of f32.
const MOST_SCORES: usize = 1 << 28;

/// cuBLASLt's own workspace and what the driver keeps for itself, roughly.
const OVERHEAD: u64 = 512 << 20;

/// Values in the buffers of a pass over square pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) side: usize,
    /// Patches of a picture.
    pub(crate) patches: usize,
    /// Tokens of a picture.
    pub(crate) tokens: usize,
    pub(crate) dim: usize,
    pub(crate) heads: usize,
    /// Outputs of the feed-forward network's first layer.
    pub(crate) up: usize,
    /// Inputs of its second.
    pub(crate) hidden: usize,
}

impl Sizes {
    pub(crate) fn of(config: &VitConfig, batch: usize, side: usize) -> Self {
        let patches = (side / PATCH_SIZE).pow(2);
        let hidden = config.ffn_hidden_dim;
        Self {
            batch,
            side,
            patches,
            tokens: patches + config.num_prefix_tokens(),
            dim: config.embed_dim,
            heads: config.num_heads,
            up: match config.ffn {
                FfnKind::Mlp => hidden,
                FfnKind::SwiGlu => 2 * hidden,
            },
            hidden,
        }
    }

    /// Token rows of all pictures.
    pub(crate) fn rows(&self) -> usize {
        self.batch * self.tokens
    }

    /// The residual stream, and as many f32 sums beside it.
    pub(crate) fn wide(&self) -> usize {
        self.rows() * self.dim
    }

    /// Queries, keys and values; before them the patches.
    pub(crate) fn qkv(&self) -> usize {
        (3 * self.rows() * self.dim).max(self.batch * self.patches * PATCH_ROW)
    }

    /// What the gate of SwiGLU gives; nothing otherwise.
    pub(crate) fn gated(&self) -> usize {
        if self.up == self.hidden { 0 } else { self.rows() * self.hidden }
    }

    /// Bytes of all buffers, with numbers of `narrow` bytes in products, and of attention's scores where
    /// it is computed in pieces.
    pub(crate) fn bytes(&self, narrow: usize, in_pieces: bool) -> u64 {
        let rows = self.rows();
        // Normed rows and attention's output, besides those named above.
        let narrow_values = 2 * rows * self.dim + self.qkv() + rows * self.up + self.gated();
        let scores = match in_pieces {
            true => Pieces::of(self.tokens, self.heads).scores() * (4 + narrow),
            false => 0,
        };
        let pictures = 2 * self.batch * self.side * self.side * 3;
        (2 * 4 * self.wide() + narrow * narrow_values + scores + pictures) as u64
    }
}

/// Bytes of a backbone's weights.
pub(crate) fn weight_bytes(config: &VitConfig, narrow: usize) -> u64 {
    let (dim, sizes) = (config.embed_dim, Sizes::of(config, 1, PATCH_SIZE));
    let block = 4 * dim * dim + sizes.up * dim + dim * sizes.hidden;
    (narrow * (config.depth * block + PATCH_ROW * dim)) as u64
}

/// Largest batch whose buffers fit into four fifths of `free` bytes beside the weights; 0 if not even
/// one picture does.
pub(crate) fn most_pictures(
    config: &VitConfig,
    side: usize,
    narrow: usize,
    in_pieces: bool,
    free: u64,
) -> usize {
    let room = free.saturating_sub(OVERHEAD) / 5 * 4;
    let bytes = |batch: usize| Sizes::of(config, batch, side).bytes(narrow, in_pieces);
    let each = (bytes(2) - bytes(1)).max(1);
    match room.checked_sub(bytes(1)) {
        Some(rest) => 1 + usize::try_from(rest / each).unwrap_or(usize::MAX - 1),
        None => 0,
    }
}

/// Queries of one picture that attention takes at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pieces {
    tokens: usize,
    heads: usize,
    /// Values from one query's scores to the next: rows start at multiples of 16 bytes.
    pub(crate) stride: usize,
    /// Queries in a piece, the last one excepted.
    pub(crate) queries: usize,
}

impl Pieces {
    pub(crate) fn of(tokens: usize, heads: usize) -> Self {
        let stride = tokens.next_multiple_of(8);
        let queries = (MOST_SCORES / (heads * stride)).clamp(1, tokens);
        Self { tokens, heads, stride, queries }
    }

    /// Values in the scores of one piece, of all heads.
    pub(crate) fn scores(&self) -> usize {
        self.heads * self.queries * self.stride
    }

    /// The pieces, which are all queries in order.
    pub(crate) fn ranges(self) -> impl Iterator<Item = Range<usize>> {
        let starts = (0..self.tokens).step_by(self.queries);
        starts.map(move |start| start..(start + self.queries).min(self.tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::config::VARIANTS;
    use super::*;

    #[test]
    fn pieces_cover_all_queries_once_and_stay_below_the_limit() {
        for (tokens, heads) in [(1, 1), (2, 6), (257, 6), (1374, 24), (16_389, 24), (16_389, 64)] {
            let pieces = Pieces::of(tokens, heads);
            let mut next = 0;
            for range in pieces.ranges() {
                assert_eq!(range.start, next);
                assert!(range.len() <= pieces.queries && !range.is_empty());
                next = range.end;
            }
            assert_eq!(next, tokens);
            assert!(pieces.scores() < 1 << 31 && pieces.stride >= tokens);
            assert!(pieces.stride.is_multiple_of(8));
        }
        assert_eq!(Pieces::of(1374, 24).queries, 1374, "a usual picture is one piece");
        assert!(Pieces::of(16_389, 24).queries < 16_389);
    }

    #[test]
    fn room_is_counted_as_buffers_are_made() {
        let giant = VARIANTS[7].config();
        let sizes = Sizes::of(&giant, 3, 224);
        assert_eq!((sizes.patches, sizes.tokens, sizes.rows()), (256, 261, 783));
        assert_eq!((sizes.up, sizes.hidden, sizes.gated()), (8192, 4096, 783 * 4096));
        // ViT-g has 1.1 thousand million parameters.
        let bytes = weight_bytes(&giant, 2);
        assert!((2_200_000_000..2_300_000_000).contains(&bytes), "{bytes}");

        let most = |free: u64| most_pictures(&giant, 518, 2, false, free);
        assert_eq!(most(OVERHEAD), 0);
        assert_eq!(most(0), 0);
        let of_80 = most(77 << 30);
        assert!(of_80 > 64, "{of_80}");
        let needed = Sizes::of(&giant, of_80, 518).bytes(2, false);
        assert!(needed <= (77 << 30) / 5 * 4);
        // A whole batch of pictures with small tokens has patches larger than queries.
        let small = VitConfig::mlp(32, 1, 2, 4);
        assert_eq!(Sizes::of(&small, 2, 28).qkv(), 2 * 4 * PATCH_ROW);
    }
}
