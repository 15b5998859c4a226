//! How many pictures go through at a time: measured once, and halved whenever memory does not suffice.

use std::ops::Range;
use std::time::Duration;

use super::machine::Fault;

/// Gain in pictures a second for which a batch is made twice as large.
const WORTH_IT: f64 = 1.03;

/// The smallest batch that is about as fast as any: sizes are doubled, up to `most`, for as long as
/// pictures get faster. `time` gives the seconds of one batch.
///
/// # Errors
/// Not even one picture can be computed, or the device failed.
pub(crate) fn fastest(
    most: usize,
    mut time: impl FnMut(usize) -> Result<Duration, Fault>,
) -> Result<usize, Fault> {
    let mut best: Option<(usize, f64)> = None;
    let mut without_gain = 0;
    for batch in std::iter::successors(Some(1), |batch| Some(batch * 2)) {
        if batch > most.max(1) || without_gain == 2 {
            break;
        }
        let seconds = match (time(batch), best) {
            (Ok(time), _) => time.as_secs_f64().max(1e-9),
            // What is known to fit will do.
            (Err(Fault::OutOfMemory), Some(_)) => break,
            (Err(fault), _) => return Err(fault),
        };
        let speed = batch as f64 / seconds;
        match best {
            Some((_, fastest)) if speed < fastest * WORTH_IT => without_gain += 1,
            _ => (best, without_gain) = (Some((batch, speed)), 0),
        }
    }
    Ok(best.map_or(1, |(batch, _)| batch))
}

/// Runs `count` pictures in batches of at most `limit`. A batch for which memory does not suffice is
/// halved and tried again, and `limit` stays at what was left of it. `run` is given a batch and what
/// will follow it if all goes well.
///
/// # Errors
/// [`Fault::OutOfMemory`] when one picture alone does not fit; any other fault of `run`.
pub(crate) fn backing_off(
    count: usize,
    limit: &mut usize,
    mut run: impl FnMut(Range<usize>, Range<usize>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut start = 0;
    while start < count {
        let size = (*limit).clamp(1, count - start);
        let end = start + size;
        match run(start..end, end..(end + size).min(count)) {
            Ok(()) => start = end,
            Err(Fault::OutOfMemory) if size > 1 => *limit = size / 2,
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that needs `start` for any batch and `each` for a picture, and holds `room` of them.
    fn device(start: f64, each: f64, room: usize) -> impl FnMut(usize) -> Result<Duration, Fault> {
        move |batch| match batch <= room {
            true => Ok(Duration::from_secs_f64(start + each * batch as f64)),
            false => Err(Fault::OutOfMemory),
        }
    }

    #[test]
    fn the_batch_grows_for_as_long_as_it_pays() {
        // 1 ms to start with and 1 ms each: 64 is 2 % slower a picture than any larger batch.
        assert_eq!(fastest(1024, device(1e-3, 1e-3, 9999)), Ok(32));
        // Nothing to gain.
        assert_eq!(fastest(1024, device(0.0, 1e-3, 9999)), Ok(1));
        // All to gain, up to the limits given and found.
        assert_eq!(fastest(256, device(1.0, 1e-9, 9999)), Ok(256));
        assert_eq!(fastest(300, device(1.0, 1e-9, 9999)), Ok(256));
        assert_eq!(fastest(1024, device(1.0, 1e-9, 100)), Ok(64));
        assert_eq!(fastest(0, device(1.0, 1e-9, 100)), Ok(1));
    }

    #[test]
    fn one_slow_size_between_fast_ones_is_passed_over() {
        let time = |batch: usize| {
            let each = if batch == 8 { 1.0 } else { 1.0 / batch as f64 };
            Ok(Duration::from_secs_f64(each * batch as f64))
        };
        assert_eq!(fastest(32, time), Ok(32));
    }

    #[test]
    fn a_device_without_room_or_broken_is_an_error() {
        assert_eq!(fastest(64, device(0.0, 1.0, 0)), Err(Fault::OutOfMemory));
        let broken = || Fault::Broken("gone".to_owned());
        assert_eq!(fastest(64, |_| Err(broken())), Err(broken()));
        let later = |batch| if batch < 4 { Ok(Duration::from_secs(1)) } else { Err(broken()) };
        assert_eq!(fastest(64, later), Err(broken()));
    }

    #[test]
    fn a_batch_that_does_not_fit_is_halved_and_stays_so() {
        let mut limit = 16;
        let mut done = Vec::new();
        let result = backing_off(21, &mut limit, |batch, next| {
            assert_eq!(next.start, batch.end);
            if batch.len() > 5 {
                return Err(Fault::OutOfMemory);
            }
            done.push(batch);
            Ok(())
        });
        assert_eq!((result, limit), (Ok(()), 4));
        assert_eq!(done, [0..4, 4..8, 8..12, 12..16, 16..20, 20..21]);
    }

    #[test]
    fn memory_that_goes_on_the_way_repeats_nothing_that_is_done() {
        let (mut limit, mut done, mut calls) = (4, 0, 0);
        let result = backing_off(10, &mut limit, |batch, _| {
            calls += 1;
            assert_eq!(batch.start, done);
            if calls == 2 {
                return Err(Fault::OutOfMemory);
            }
            done = batch.end;
            Ok(())
        });
        assert_eq!((result, limit, done, calls), (Ok(()), 2, 10, 5));
    }

    #[test]
    fn one_picture_that_does_not_fit_ends_it() {
        let mut limit = 8;
        let mut sizes = Vec::new();
        let result = backing_off(8, &mut limit, |batch, _| {
            sizes.push(batch.len());
            Err(Fault::OutOfMemory)
        });
        assert_eq!(result, Err(Fault::OutOfMemory));
        assert_eq!(sizes, [8, 4, 2, 1]);
        assert_eq!(backing_off(0, &mut limit, |_, _| Err(Fault::OutOfMemory)), Ok(()));
        limit = 0;
        assert_eq!(
            backing_off(2, &mut limit, |batch, _| {
                assert_eq!(batch.len(), 1);
                Ok(())
            }),
            Ok(())
        );
    }
}
