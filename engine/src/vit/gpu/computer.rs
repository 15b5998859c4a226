//! One device at work: batches through its memory, with pictures of the next one on their way.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::config::VitConfig;
use super::batches::{backing_off, fastest};
use super::folded::{Dense, Folded, Positions};
use super::machine::{Activation, Affine, Fault, Machine, Recording, Rows, SLOTS};
use super::owners::Owner;
use super::pass::{Ask, Resident, Workspace, recording};
use super::plan::{Sizes, most_pictures, weight_bytes};
use crate::kernels::Precision;

/// Pictures in a batch at most, and before it has been measured what suits the device.
const MOST: usize = 512;
const UNMEASURED: usize = 64;
/// Recordings save the time of starting work, which matters for small batches only.
const MOST_RECORDED: usize = 16;
/// Largest magnitude in f16 that is trusted on pictures made up for the purpose: a quarter of what
/// the format holds, because real ones may go further.
const F16_TRUSTED: f32 = 65_504.0 / 4.0;

/// What a device is asked to do.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    /// Pictures of the side asked for, RGB8.
    Embed { pictures: Vec<Arc<[u8]>>, ask: Ask },
    /// Find the batch that is fastest.
    Tune { side: usize },
    /// Time a square product of this many rows.
    Peak { rows: usize },
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Done {
    /// For each layer the normed tokens, (pictures, tokens, C).
    Values(Vec<Vec<f32>>),
    Batch(usize),
    /// Operations a second.
    Peak(f64),
}

/// Choices that are not the model's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choices {
    /// Pixels of a picture's side.
    pub(crate) side: usize,
    pub(crate) precision: Precision,
    /// Whether passes over small batches are recorded and replayed.
    pub(crate) recordings: bool,
}

/// A device with a backbone on it.
pub(crate) struct Computer<M: Machine> {
    machine: M,
    config: VitConfig,
    positions: Positions,
    resident: Resident<M>,
    space: Option<Workspace<M>>,
    limit: usize,
    recordings: bool,
    seen: HashSet<Recording>,
}

impl<M: Machine> Computer<M> {
    /// Brings a backbone to a device.
    ///
    /// # Errors
    /// It and one picture do not fit into the device's memory, values go beyond the range of the
    /// precision, or the device failed.
    pub(crate) fn new(mut machine: M, from: &Folded, choices: Choices) -> Result<Self, Fault> {
        let Choices { side, precision, recordings } = choices;
        let config = from.config.clone();
        let (narrow, in_pieces) = (machine.narrow_bytes(), in_pieces(&machine, &config));
        let weights = weight_bytes(&config, narrow);
        let (free, total) = machine.memory()?;
        let left = free.saturating_sub(weights);
        let most = most_pictures(&config, side, narrow, in_pieces, left);
        let picture = Sizes::of(&config, 1, side).bytes(narrow, in_pieces);
        let too_small = || {
            Fault::Refused(format!(
                "the weights take {} and one picture of {side} px {}, besides what the driver \
                 keeps, but of its memory of {} only {} are free; end other programs on it, or \
                 use a smaller model, a smaller --size, or --device cpu",
                gib(weights),
                gib(picture),
                gib(total),
                gib(free)
            ))
        };
        if most == 0 {
            return Err(too_small());
        }
        if precision == Precision::F16 {
            within_range("a weight", from.largest(), 65_504.0)?;
        }
        let resident = Resident::load(&mut machine, from).map_err(|fault| match fault {
            Fault::OutOfMemory => too_small(),
            other => other,
        })?;
        let mut computer = Self {
            positions: from.positions.clone(),
            resident,
            space: None,
            limit: most.min(UNMEASURED),
            recordings,
            seen: HashSet::new(),
            machine,
            config,
        };
        if precision == Precision::F16 {
            computer.check_range(side)?;
        }
        Ok(computer)
    }

    /// The device, for tests to look at.
    #[cfg(test)]
    pub(crate) fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Refuses a precision that made-up pictures come near the end of.
    fn check_range(&mut self, side: usize) -> Result<(), Fault> {
        let pictures = made_up(side);
        self.machine.watch()?;
        let done = self.embed(&pictures, &self.cls(side));
        let largest = self.machine.watched()?;
        done?;
        within_range("an activation", largest, F16_TRUSTED)
    }

    /// The usual question: CLS after the last block.
    fn cls(&self, side: usize) -> Ask {
        Ask { side, layers: vec![self.config.depth - 1], cls_only: true }
    }

    /// Pictures to normed tokens, for each layer.
    fn embed(&mut self, pictures: &[Arc<[u8]>], ask: &Ask) -> Result<Vec<Vec<f32>>, Fault> {
        let positions = |grid| self.positions.of(grid);
        self.resident.prepare(&mut self.machine, ask.side, positions)?;
        let mut out = vec![Vec::new(); ask.layers.len()];
        let mut staged = None;
        let mut limit = self.limit;
        let result = backing_off(pictures.len(), &mut limit, |batch, next| {
            let done = self.batch(pictures, (batch, next), ask, &mut staged);
            if done == Err(Fault::OutOfMemory) {
                self.release();
                staged = None;
            }
            for (layer, values) in out.iter_mut().zip(done?) {
                layer.extend(values);
            }
            Ok(())
        });
        self.limit = limit;
        match result {
            Ok(()) => Ok(out),
            Err(Fault::OutOfMemory) => Err(self.too_large(ask.side)),
            Err(fault) => Err(fault),
        }
    }

    /// One batch, while pictures of the next are copied. `staged` says which are on the device.
    fn batch(
        &mut self,
        pictures: &[Arc<[u8]>],
        (batch, next): (Range<usize>, Range<usize>),
        ask: &Ask,
        staged: &mut Option<(usize, Range<usize>)>,
    ) -> Result<Vec<Vec<f32>>, Fault> {
        let count = batch.len();
        if !self.space.as_ref().is_some_and(|space| space.holds(count, ask.side)) {
            self.release();
            let sizes = Sizes::of(&self.config, count, ask.side);
            self.space = Some(Workspace::new(&mut self.machine, sizes)?);
        }
        let slot = match staged.take() {
            Some((slot, range)) if range == batch => slot,
            _ => {
                self.stage(0, &pictures[batch])?;
                0
            }
        };
        self.machine.await_slot(slot)?;
        let mut values = Vec::with_capacity(ask.layers.len());
        self.pass((slot, count), ask, &mut values)?;
        self.machine.free_slot(slot)?;
        if !next.is_empty() {
            let other = (slot + 1) % SLOTS;
            self.stage(other, &pictures[next.clone()])?;
            *staged = Some((other, next));
        }
        let Some(space) = &self.space else { return Err(Fault::OutOfMemory) };
        values.push(self.resident.values(&mut self.machine, space, count, ask)?);
        Ok(values)
    }

    fn stage(&mut self, slot: usize, pictures: &[Arc<[u8]>]) -> Result<(), Fault> {
        let pictures: Vec<&[u8]> = pictures.iter().map(AsRef::as_ref).collect();
        self.machine.stage(slot, &pictures)
    }

    /// Queues a pass, from a recording where there is one.
    fn pass(
        &mut self,
        (slot, count): (usize, usize),
        ask: &Ask,
        out: &mut Vec<Vec<f32>>,
    ) -> Result<(), Fault> {
        let Self { machine, resident, space: Some(space), .. } = self else {
            return Err(Fault::OutOfMemory);
        };
        let key = recording(slot, count, ask, self.config.depth)
            .filter(|_| self.recordings && count <= MOST_RECORDED);
        let Some(key) = key else {
            return resident.launch(machine, space, (slot, count), ask, out);
        };
        if machine.replay(key)? {
            return Ok(());
        }
        // What is loaded or chosen at first use must not happen while recording: not the first time.
        if self.seen.insert(key) || !machine.record()? {
            return resident.launch(machine, space, (slot, count), ask, out);
        }
        let queued = resident.launch(machine, space, (slot, count), ask, out);
        let kept = machine.keep(key);
        if queued.is_err() {
            // Half a pass must not be replayed.
            machine.forget();
        }
        queued.and(kept)?;
        match machine.replay(key)? {
            true => Ok(()),
            false => Err(Fault::Broken("a recorded pass was lost".to_owned())),
        }
    }

    /// Gives buffers back, and forgets what was recorded with them.
    fn release(&mut self) {
        self.machine.forget();
        self.space = None;
    }

    fn too_large(&mut self, side: usize) -> Fault {
        let (narrow, in_pieces) =
            (self.machine.narrow_bytes(), in_pieces(&self.machine, &self.config));
        let needed = Sizes::of(&self.config, 1, side).bytes(narrow, in_pieces);
        let free =
            self.machine.memory().map_or_else(|_| "unknown".to_owned(), |(free, _)| gib(free));
        Fault::Refused(format!(
            "a single picture of {side} px needs {} of its memory, of which {free} are free; use a \
             smaller --size, end other programs on it, or use --device cpu",
            gib(needed)
        ))
    }

    /// Finds the fastest batch, which is then the largest that is used.
    fn tune(&mut self, side: usize) -> Result<usize, Fault> {
        let (narrow, in_pieces) =
            (self.machine.narrow_bytes(), in_pieces(&self.machine, &self.config));
        self.release();
        let (free, _) = self.machine.memory()?;
        let most = most_pictures(&self.config, side, narrow, in_pieces, free).clamp(1, MOST);
        let (picture, ask) = (Arc::<[u8]>::from(vec![127u8; side * side * 3]), self.cls(side));
        let before = self.limit;
        let best = fastest(most, |batch| {
            let pictures = vec![Arc::clone(&picture); batch];
            self.limit = batch;
            // The first time pays for what is loaded, chosen and made.
            self.embed(&pictures, &ask)?;
            let mut least = Duration::MAX;
            for _ in 0..3 {
                let start = Instant::now();
                self.embed(&pictures, &ask)?;
                least = least.min(start.elapsed());
            }
            // It was done in smaller batches, so this one does not fit.
            if self.limit < batch { Err(Fault::OutOfMemory) } else { Ok(least) }
        });
        self.limit = *best.as_ref().unwrap_or(&before);
        self.release();
        best
    }

    /// Operations a second in products of two square matrices.
    fn peak(&mut self, rows: usize) -> Result<f64, Fault> {
        const ROUNDS: usize = 20;
        let Self { machine, .. } = self;
        let weight = noise(rows * rows);
        let wide = machine.upload(&weight)?;
        let by = machine.matrix(&Dense { weight, bias: vec![0.0; rows], inputs: rows })?;
        let (gain, shift) = (machine.upload(&vec![1.0; rows])?, machine.upload(&vec![0.0; rows])?);
        let affine = Affine { gain, shift };
        let (mut x, mut out) = (machine.narrow(rows * rows)?, machine.narrow(rows * rows)?);
        machine.norm(&wide, Rows { count: rows, step: 1 }, &affine, &mut x)?;
        let wait = |machine: &mut M| machine.download(&wide, 1, &mut Vec::new());
        for _ in 0..3 {
            machine.product(&x, rows, &by, Activation::None, &mut out)?;
        }
        wait(machine)?;
        let start = Instant::now();
        for _ in 0..ROUNDS {
            machine.product(&x, rows, &by, Activation::None, &mut out)?;
        }
        wait(machine)?;
        let operations = (2 * ROUNDS) as f64 * (rows as f64).powi(3);
        Ok(operations / start.elapsed().as_secs_f64())
    }
}

impl<M: Machine> Owner<Job, Done> for Computer<M> {
    fn run(&mut self, job: Job) -> Result<Done, Fault> {
        match job {
            Job::Embed { pictures, ask } => self.embed(&pictures, &ask).map(Done::Values),
            Job::Tune { side } => self.tune(side).map(Done::Batch),
            Job::Peak { rows } => self.peak(rows).map(Done::Peak),
        }
    }
}

fn in_pieces<M: Machine>(machine: &M, config: &VitConfig) -> bool {
    machine.in_pieces(config.embed_dim / config.num_heads)
}

fn within_range(what: &str, largest: f32, trusted: f32) -> Result<(), Fault> {
    match largest <= trusted {
        true => Ok(()),
        false => Err(Fault::Refused(format!(
            "{what} of this model reaches {largest:.0}, and f16 is used up to {trusted:.0} only; use \
             --matmul bf16"
        ))),
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30))
}

/// Even numbers between -1 and 1, the same every time.
fn noise(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Black, white, noise and a slope: no photographs, but they excite what photographs excite.
fn made_up(side: usize) -> Vec<Arc<[u8]>> {
    let values = side * side * 3;
    let noisy = noise(values).iter().map(|value| (value * 127.0 + 128.0) as u8).collect();
    let slope =
        (0..values).map(|i| ((i / 3 % side + i / 3 / side) * 255 / (2 * side)) as u8).collect();
    [vec![0; values], vec![255; values], noisy, slope].map(Arc::<[u8]>::from).to_vec()
}
