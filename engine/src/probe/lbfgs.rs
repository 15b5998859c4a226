//! Minimisation of a smooth function by L-BFGS (Nocedal and Wright, Numerical Optimization, 2nd
//! edition: algorithm 7.5 with the line search of algorithms 3.5 and 3.6).

use std::collections::VecDeque;

/// Steps remembered; scipy's and cuML's defaults are 10 and 5.
const MEMORY: usize = 10;
/// Sufficient decrease and curvature (section 3.1 of the book).
const C1: f64 = 1e-4;
const C2: f64 = 0.9;
/// Relative difference of values below which they count as equal: some roundings of f64.
const FLAT: f64 = 1e-14;
/// Evaluations in one line search (`linesearch_max_iter` of the reference).
const LINE_SEARCH: usize = 50;

/// Where a minimisation ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Minimum {
    /// The point.
    pub x: Vec<f64>,
    /// Value there.
    pub value: f64,
    /// Largest magnitude in the gradient there.
    pub gradient: f64,
    /// Steps taken.
    pub iterations: usize,
}

/// Minimises `f` from `x` until no gradient entry exceeds `tolerance`, rounding leaves no step that
/// goes down, or `max_iterations` steps are taken.
///
/// `f` returns the value at its first argument and writes the gradient into its second.
pub fn minimise(
    x: Vec<f64>,
    tolerance: f64,
    max_iterations: usize,
    f: &mut dyn FnMut(&[f64], &mut [f64]) -> f64,
) -> Minimum {
    let mut gradient = vec![0.0; x.len()];
    let value = f(&x, &mut gradient);
    let mut here = Point { x, value, gradient };
    let mut pairs: VecDeque<Pair> = VecDeque::new();
    let mut iterations = 0;
    while iterations < max_iterations && here.largest() > tolerance {
        let mut direction = two_loops(&here.gradient, &pairs);
        let mut slope = dot(&direction, &here.gradient);
        if slope.is_nan() || slope >= 0.0 {
            // Rounding has spoilt the memory; steepest descent always goes down.
            pairs.clear();
            direction = here.gradient.iter().map(|g| -g).collect();
            slope = dot(&direction, &here.gradient);
        }
        let first = match pairs.is_empty() {
            true => (1.0 / (-slope).sqrt()).min(1.0),
            false => 1.0,
        };
        let Some(next) = line_search(&here, &direction, slope, first, f) else { break };
        pairs.extend(Pair::between(&here, &next));
        if pairs.len() > MEMORY {
            pairs.pop_front();
        }
        here = next;
        iterations += 1;
    }
    Minimum { value: here.value, gradient: here.largest(), x: here.x, iterations }
}

struct Point {
    x: Vec<f64>,
    value: f64,
    gradient: Vec<f64>,
}

impl Point {
    fn largest(&self) -> f64 {
        self.gradient.iter().fold(0.0, |max, g| g.abs().max(max))
    }
}

/// A step s and the change y of the gradient along it, with 1 / (s y).
struct Pair {
    s: Vec<f64>,
    y: Vec<f64>,
    rho: f64,
}

impl Pair {
    /// `None` where the curvature is not positive, which only rounding can cause after a step
    /// that meets the Wolfe conditions.
    fn between(a: &Point, b: &Point) -> Option<Self> {
        let difference = |a: &[f64], b: &[f64]| b.iter().zip(a).map(|(b, a)| b - a).collect();
        let (s, y): (Vec<f64>, Vec<f64>) =
            (difference(&a.x, &b.x), difference(&a.gradient, &b.gradient));
        let curvature = dot(&s, &y);
        (curvature > f64::EPSILON * dot(&y, &y)).then(|| Self { s, y, rho: 1.0 / curvature })
    }
}

/// Minus the approximate inverse Hessian times the gradient (algorithm 7.4).
fn two_loops(gradient: &[f64], pairs: &VecDeque<Pair>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(pairs.len());
    for Pair { s, y, rho } in pairs.iter().rev() {
        let alpha = rho * dot(s, &q);
        q.iter_mut().zip(y).for_each(|(q, y)| *q -= alpha * y);
        alphas.push(alpha);
    }
    if let Some(Pair { y, rho, .. }) = pairs.back() {
        let scale = 1.0 / (rho * dot(y, y));
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for (Pair { s, y, rho }, alpha) in pairs.iter().zip(alphas.into_iter().rev()) {
        let beta = rho * dot(y, &q);
        q.iter_mut().zip(s).for_each(|(q, s)| *q += (alpha - beta) * s);
    }
    q
}

/// A point along `direction` that meets the strong Wolfe conditions, or the lowest one seen when
/// rounding keeps them out of reach; `None` when nothing seen is lower than the start.
fn line_search(
    start: &Point,
    direction: &[f64],
    slope: f64,
    first: f64,
    f: &mut dyn FnMut(&[f64], &mut [f64]) -> f64,
) -> Option<Point> {
    let mut best: Option<Point> = None;
    // Step length, value and slope at both ends of the bracket.
    let mut low = (0.0, start.value, slope);
    let mut high: Option<(f64, f64, f64)> = None;
    let mut step = first;
    for _ in 0..LINE_SEARCH {
        let x: Vec<f64> = start.x.iter().zip(direction).map(|(x, d)| x + step * d).collect();
        let mut gradient = vec![0.0; x.len()];
        let value = f(&x, &mut gradient);
        let slope_here = dot(&gradient, direction);
        let sound = value.is_finite() && slope_here.is_finite();
        // Values that differ by rounding alone say nothing; slopes still do (the approximate Wolfe
        // conditions of Hager and Zhang, SIAM J. Optim. 16, 2005).
        let flat = (value - start.value).abs() <= FLAT * start.value.abs();
        let higher = value > start.value + C1 * step * slope || value >= low.1;
        let too_high = !sound || (higher && !flat);
        let here = (step, value, slope_here);
        let point = Point { x, value, gradient };
        if !too_high && slope_here.abs() <= -C2 * slope {
            return Some(point);
        }
        if sound && value < best.as_ref().map_or(start.value, |best| best.value) {
            best = Some(point);
        }
        if too_high {
            high = Some(here);
        } else {
            let passed = match high {
                None => slope_here >= 0.0,
                Some(high) => slope_here * (high.0 - low.0) >= 0.0,
            };
            // The minimum lies between the two lowest.
            if passed {
                high = Some(low);
            }
            low = here;
        }
        step = match high {
            None => 2.0 * step,
            Some(high) => between(low, high),
        };
        if high.is_some_and(|high| (high.0 - low.0).abs() <= 1e-16 * low.0.abs().max(1e-300)) {
            break;
        }
    }
    best
}

/// The minimum of the cubic through both ends (equation 3.59), kept away from them; the middle
/// where there is none.
fn between(a: (f64, f64, f64), b: (f64, f64, f64)) -> f64 {
    let d1 = a.2 + b.2 - 3.0 * (a.1 - b.1) / (a.0 - b.0);
    let d2 = (d1 * d1 - a.2 * b.2).sqrt() * (b.0 - a.0).signum();
    let cubic = b.0 - (b.0 - a.0) * (b.2 + d2 - d1) / (b.2 - a.2 + 2.0 * d2);
    let margin = 0.1 * (b.0 - a.0).abs();
    let (least, most) = (a.0.min(b.0) + margin, a.0.max(b.0) - margin);
    if cubic.is_finite() { cubic.clamp(least, most) } else { 0.5 * (a.0 + b.0) }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rosenbrocks_valley_is_followed_to_its_end() {
        let mut f = |x: &[f64], g: &mut [f64]| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            g[0] = -2.0 * a - 400.0 * x[0] * b;
            g[1] = 200.0 * b;
            a * a + 100.0 * b * b
        };
        let minimum = minimise(vec![-1.2, 1.0], 1e-9, 200, &mut f);
        assert!(minimum.gradient <= 1e-9 && minimum.iterations < 60, "{minimum:?}");
        assert!((minimum.x[0] - 1.0).abs() < 1e-8 && (minimum.x[1] - 1.0).abs() < 1e-8);
    }

    #[test]
    fn a_badly_scaled_quadratic_is_solved() {
        let scales: Vec<f64> = (0..30).map(|i| 10f64.powf(f64::from(i) / 15.0)).collect();
        let mut f = |x: &[f64], g: &mut [f64]| {
            g.iter_mut().zip(x).zip(&scales).for_each(|((g, x), s)| *g = s * (x - 1.0));
            x.iter().zip(&scales).map(|(x, s)| 0.5 * s * (x - 1.0).powi(2)).sum()
        };
        let minimum = minimise(vec![0.0; 30], 1e-8, 1000, &mut f);
        assert!(minimum.gradient <= 1e-8, "{} {}", minimum.gradient, minimum.iterations);
        assert!(minimum.x.iter().all(|x| (x - 1.0).abs() < 1e-7));
    }

    #[test]
    fn steps_into_infinity_are_taken_back() {
        let mut f = |x: &[f64], g: &mut [f64]| {
            // Infinite from 1 on, least at 0.5.
            g[0] = 1.0 / (1.0 - x[0]) - 1.0 / x[0];
            if x[0] > 0.0 && x[0] < 1.0 { -(1.0 - x[0]).ln() - x[0].ln() } else { f64::INFINITY }
        };
        let minimum = minimise(vec![0.001], 1e-9, 100, &mut f);
        assert!((minimum.x[0] - 0.5).abs() < 1e-8, "{minimum:?}");
    }
}
