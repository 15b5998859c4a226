//! The backbone on our own CPU kernels: weights packed once, every step between two products fused
//! into the one before or after it, and no memory asked for once the first pass has run.
//!
//! It computes what [`VisionTransformer`](super::VisionTransformer) does; that one, on candle, is
//! the reference and the way to other devices.
//!
//! Files: `weights` packs, `calibrate` says how for bytes, `workspace` holds what a pass writes, `pass` is the pass, `product` its
//! products, `attention` its attention, `stages` says where the time went.

mod attention;
mod calibrate;
mod pass;
mod product;
mod stages;
#[cfg(test)]
pub(crate) mod tests;
mod weights;
mod workspace;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::calibrate::{Largest, Seen};
use self::pass::{Grid, Pass};
use self::stages::Stages;
use self::weights::{Kernels, Packed};
use self::workspace::{Shape, Workspace};
use super::config::{PATCH_SIZE, PosEmbedRule, VitConfig};
use super::pos_embed;
use crate::kernels::{BLOCK, Int8, Isa, Kernel, Precision, Stored, Team};

/// Rows of a batch that one thread works through at a time: small pictures are put together until
/// they are as many.
const UNIT_ROWS: usize = 256;
/// Tokens of a picture from which all threads share it, whatever the batch: its activations are
/// large.
const LARGE: usize = 1024;

/// Which tokens of a layer are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tokens {
    /// CLS alone: the rest of the last block is then not computed.
    Cls,
    /// CLS, registers and patches.
    All,
}

/// A batch of pictures, (3, height, width) each, CHW, normalised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) images: &'a [&'a [f32]],
    /// Pixels, a multiple of 14.
    pub(crate) height: usize,
    /// Pixels, a multiple of 14.
    pub(crate) width: usize,
}

type Tables = HashMap<(usize, usize), Arc<Vec<f32>>>;

/// A frozen backbone with packed weights.
pub(crate) struct CpuVit {
    config: VitConfig,
    rule: PosEmbedRule,
    isa: Isa,
    kernels: Kernels,
    packed: Packed,
    /// What is added to the patch embedding's products, by (rows, columns): CLS and registers, then
    /// position embeddings plus bias.
    tables: Mutex<Tables>,
    /// Workspaces not in use: for each pass that ran at the same time as others, one for each thread.
    spare: Mutex<Vec<Vec<Mutex<Workspace>>>>,
    stages: Stages,
}

impl std::fmt::Debug for CpuVit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CpuVit")
            .field("config", &self.config)
            .field("isa", &self.isa)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Caches of finished things cannot be left half-written, and workspaces hold nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CpuVit {
    /// Whether the kernels can do this shape in this precision: heads are whole numbers of tiles.
    pub(crate) fn supports(config: &VitConfig, precision: Precision) -> bool {
        let unit = match precision {
            Precision::F32 => BLOCK,
            Precision::Bf16 | Precision::Int8 => 2 * BLOCK,
            Precision::F16 => return false,
        };
        let head = config.embed_dim.checked_div(config.num_heads).unwrap_or(0);
        head > 0 && head.is_multiple_of(unit) && head * config.num_heads == config.embed_dim
    }

    /// Packs weights for an instruction set; `None` where this machine lacks it or the shape is not
    /// [supported](Self::supports). `values` hands out parameters by canonical name.
    ///
    /// # Errors
    /// Those of `values`.
    pub(crate) fn load<E: Send>(
        config: &VitConfig,
        rule: PosEmbedRule,
        isa: Isa,
        precision: Precision,
        values: &(dyn Fn(&str) -> Result<Vec<f32>, E> + Sync),
    ) -> Result<Option<Self>, E> {
        let Some(kernels) = Self::kernels(config, isa, precision) else { return Ok(None) };
        let largest = match precision {
            Precision::F32 | Precision::Bf16 | Precision::F16 => None,
            Precision::Int8 => Largest::of(config, isa, values)?,
        };
        let packed = Packed::load(config, kernels, values, largest.as_ref())?;
        Ok(Some(Self::new(config, rule, isa, kernels, packed)))
    }

    /// The same from weights that were packed before, for a model of the same
    /// [layout](Self::layout); `None` as [`load`](Self::load), or where the file does not hold
    /// exactly what this model needs.
    pub(crate) fn stored(
        config: &VitConfig,
        rule: PosEmbedRule,
        isa: Isa,
        precision: Precision,
        from: Stored,
    ) -> Option<Self> {
        let kernels = Self::kernels(config, isa, precision)?;
        let packed = Packed::stored(config, kernels, from)?;
        Some(Self::new(config, rule, isa, kernels, packed))
    }

    /// Everything but the weights that decides what is packed, in words; `None` as
    /// [`load`](Self::load).
    pub(crate) fn layout(config: &VitConfig, isa: Isa, precision: Precision) -> Option<String> {
        let kernels = Self::kernels(config, isa, precision)?;
        Some(format!("{} {precision}; {kernels:?}; {config:?}", isa.name()))
    }

    /// The arrays of the packed weights, in the order in which [`stored`](Self::stored) reads them.
    pub(crate) fn arrays(&self) -> Vec<&[u8]> {
        self.packed.arrays()
    }

    fn kernels(config: &VitConfig, isa: Isa, precision: Precision) -> Option<Kernels> {
        let float = Kernel::of(isa, precision)?;
        let int8 = Int8::of(isa).filter(|_| precision == Precision::Int8);
        Self::supports(config, precision).then_some(Kernels { float, int8 })
    }

    fn new(
        config: &VitConfig,
        rule: PosEmbedRule,
        isa: Isa,
        kernels: Kernels,
        packed: Packed,
    ) -> Self {
        Self {
            config: config.clone(),
            rule,
            isa,
            kernels,
            packed,
            tables: Mutex::default(),
            spare: Mutex::default(),
            stages: Stages::default(),
        }
    }

    /// Shape of the backbone.
    pub(crate) fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Instructions in use.
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// Time spent in each stage since the model was loaded, by name, over all threads.
    pub(crate) fn stages(&self) -> Vec<(&'static str, Duration)> {
        self.stages.times()
    }

    /// Bytes of packed weights.
    pub(crate) fn bytes(&self) -> usize {
        self.packed.bytes()
    }

    /// Tokens of a picture of this many pixels.
    pub(crate) fn tokens(&self, height: usize, width: usize) -> usize {
        self.config.num_prefix_tokens() + height / PATCH_SIZE * (width / PATCH_SIZE)
    }

    /// Final-normed tokens after the given blocks, in the order asked for.
    ///
    /// `out` holds, for each layer, for each picture, `embed_dim` values of each wanted token; with
    /// [`Tokens::Cls`] only the last block may be asked for.
    ///
    /// # Panics
    /// Sizes do not fit; callers check what users give.
    pub(crate) fn forward(
        &self,
        team: &Team,
        batch: Batch<'_>,
        layers: &[usize],
        wanted: Tokens,
        out: &mut [f32],
    ) {
        self.observed(team, batch, layers, wanted, out, None);
    }

    /// [`forward`](Self::forward), with a look at the rows before norms.
    fn observed(
        &self,
        team: &Team,
        batch: Batch<'_>,
        layers: &[usize],
        wanted: Tokens,
        out: &mut [f32],
        seen: Option<&Seen>,
    ) {
        let dim = self.config.embed_dim;
        let tokens = self.tokens(batch.height, batch.width);
        let per_image = dim * if wanted == Tokens::Cls { 1 } else { tokens };
        assert_eq!(out.len(), layers.len() * batch.images.len() * per_image);
        assert!(layers.iter().all(|&layer| layer < self.config.depth));
        assert!(wanted == Tokens::All || layers == [self.config.depth - 1]);
        let pixels = 3 * batch.height * batch.width;
        assert!(batch.images.iter().all(|image| image.len() == pixels));
        if batch.images.is_empty() || layers.is_empty() {
            return;
        }
        let grid = (batch.height / PATCH_SIZE, batch.width / PATCH_SIZE);
        let table = self.table(grid);
        let layer_stride = batch.images.len() * per_image;
        let out = Out(out.as_mut_ptr());

        // Whole rounds of independent units first: no thread waits for another.
        let unit = (UNIT_ROWS / tokens).max(1);
        let units = batch.images.len() / unit;
        let alone = match tokens < LARGE && team.size() > 1 {
            true => units / team.size() * team.size(),
            false => 0,
        };
        let pass = |first: usize, count: usize| Pass {
            model: &self.config,
            kernels: self.kernels,
            packed: &self.packed,
            images: &batch.images[first..first + count],
            size: (batch.height, batch.width),
            tokens,
            table: &table,
            layers,
            wanted,
            out: out.at(first * per_image),
            layer_stride,
            stages: &self.stages,
            seen,
        };
        let shape = |images: usize, parts: usize| {
            Shape::new(&self.config, self.kernels, &self.packed, images, tokens, parts)
        };
        let workspaces = self.workspaces(team.size());
        if alone > 0 {
            let next = AtomicUsize::new(0);
            let shape = shape(unit, 1);
            let next_unit = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&i| i < alone);
            team.run(&|thread| {
                let _session = self.kernels.float.session();
                let mut workspace = lock(&workspaces[thread]);
                workspace.reserve(&shape, 1);
                while let Some(index) = next_unit() {
                    let grid = Grid::new(team, 0, 1, 1);
                    pass(index * unit, unit).run(&shape, &workspace.pointers(), &grid);
                }
            });
        }

        // The rest together: the threads share its rows and, where these are few, its columns.
        let mut first = alone * unit;
        while first < batch.images.len() {
            let left = batch.images.len() - first;
            let count = match tokens < LARGE {
                true => left.min(unit * team.size()),
                false => 1,
            };
            let parts = Grid::parts(team.size(), count * tokens);
            let shape = shape(count, parts);
            let mut workspace = lock(&workspaces[0]);
            workspace.reserve(&shape, team.size());
            let pointers = workspace.pointers();
            team.run(&|index| {
                let _session = self.kernels.float.session();
                let grid = Grid::new(team, index, team.size(), parts);
                pass(first, count).run(&shape, &pointers, &grid);
            });
            first += count;
        }
        lock(&self.spare).push(workspaces);
    }

    /// A workspace for each of some threads; which has been used for what is the same at every pass, so
    /// that all have grown by the second.
    fn workspaces(&self, threads: usize) -> Vec<Mutex<Workspace>> {
        let mut workspaces = lock(&self.spare).pop().unwrap_or_default();
        if workspaces.len() < threads {
            workspaces.resize_with(threads, Mutex::default);
        }
        workspaces
    }

    fn table(&self, grid: (usize, usize)) -> Arc<Vec<f32>> {
        if let Some(known) = lock(&self.tables).get(&grid) {
            return Arc::clone(known);
        }
        let dim = self.config.embed_dim;
        let rows = pos_embed::resample(&self.packed.pos_table, &self.config, self.rule, grid);
        let stride = workspace::row_stride(dim);
        let prefix = self.config.num_prefix_tokens();
        let mut table = vec![0f32; (prefix + grid.0 * grid.1) * stride];
        let (first, patches) = table.split_at_mut(prefix * stride);
        for (to, from) in first.chunks_exact_mut(stride).zip(self.packed.prefix.chunks_exact(dim)) {
            to[..dim].copy_from_slice(from);
        }
        for (to, from) in patches.chunks_exact_mut(stride).zip(rows.chunks_exact(dim)) {
            for ((to, from), bias) in to.iter_mut().zip(from).zip(&self.packed.patch_bias) {
                *to = from + bias;
            }
        }
        let table = Arc::new(table);
        lock(&self.tables).insert(grid, Arc::clone(&table));
        table
    }
}

/// The result, of which every thread writes its own part.
#[derive(Clone, Copy)]
struct Out(*mut f32);

#[expect(unsafe_code, reason = "threads write disjoint parts of one buffer")]
// SAFETY: each value of the result is written by one thread, and read after all have finished.
unsafe impl Sync for Out {}

impl Out {
    fn at(&self, value: usize) -> *mut f32 {
        self.0.wrapping_add(value)
    }
}
