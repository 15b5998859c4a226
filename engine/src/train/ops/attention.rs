//! Self-attention over packed sequences that never keeps the attention weights.
//!
//! Sequences of different lengths lie one after the other in a (T, 3 C) tensor; a token attends to
//! its own sequence only (a block-diagonal mask that costs nothing). Forward keeps nothing but its
//! result, backward computes the weights again, as FlashAttention does (arXiv 2205.14135): memory
//! grows with T, not with the square of the sequence lengths.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, D, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{is_fused, slice, tensor, with_values};
use crate::error::Result;
use crate::kernels::{Operand, elementwise, matmul_f32};

/// Lengths of the sequences packed into one tensor, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceLengths(Arc<[usize]>);

impl SequenceLengths {
    /// From the number of tokens of each sequence.
    pub fn new(lengths: impl IntoIterator<Item = usize>) -> Self {
        Self(lengths.into_iter().collect())
    }

    /// Tokens in all.
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    /// Rows of each sequence, in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.0.iter().scan(0, |end, length| {
            let start = *end;
            *end += length;
            Some(start..*end)
        })
    }
}

/// Multi-head attention within each sequence: `qkv` (T, 3 C), ordered query, key, value, heads
/// inside each, to (T, C). Differentiable. Scaled by 1 / sqrt(C / heads).
///
/// # Errors
/// `qkv` is not (`lengths.total()`, 3 C) with C a multiple of `num_heads`.
pub fn attention(qkv: &Tensor, lengths: &SequenceLengths, num_heads: usize) -> Result<Tensor> {
    check(qkv, lengths, num_heads)?;
    if is_fused(qkv) {
        let op = Attention { lengths: lengths.clone(), num_heads };
        return Ok(qkv.contiguous()?.apply_op1(op)?);
    }
    materialised_attention(qkv, lengths, num_heads)
}

fn check(qkv: &Tensor, lengths: &SequenceLengths, num_heads: usize) -> Result<()> {
    let (tokens, width) = qkv.dims2()?;
    if tokens != lengths.total() || num_heads == 0 || width % (3 * num_heads) != 0 {
        return Err(candle_core::Error::Msg(format!(
            "attention: qkv is {tokens} x {width}, but the sequences hold {} tokens and there are \
             {num_heads} heads",
            lengths.total()
        ))
        .into());
    }
    Ok(())
}

/// [`attention`] from candle's operations, all weights kept for the gradient: what memory-efficient
/// attention is compared with. Runs of sequences of one length are computed together.
///
/// # Errors
/// As [`attention`].
pub fn materialised_attention(
    qkv: &Tensor,
    lengths: &SequenceLengths,
    num_heads: usize,
) -> Result<Tensor> {
    check(qkv, lengths, num_heads)?;
    let dim = qkv.dim(1)? / 3;
    let head_dim = dim / num_heads;
    let mut out = Vec::new();
    let mut start = 0;
    for run in lengths.0.chunk_by(|a, b| a == b).filter(|run| run[0] > 0) {
        let (batch, count) = (run.len(), run[0]);
        let rows = qkv.narrow(0, start, batch * count)?;
        start += batch * count;
        let qkv = rows.reshape((batch, count, 3, num_heads, head_dim))?;
        let part = |i| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        let (query, key, value) = (part(0)?, part(1)?, part(2)?); // (b, heads, n, d)
        let scores = (query.matmul(&key.t()?)? * (head_dim as f64).powf(-0.5))?;
        let scores = scores.to_dtype(candle_core::DType::F32)?;
        let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
        let weights = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?.to_dtype(qkv.dtype())?;
        out.push(weights.matmul(&value)?.transpose(1, 2)?.reshape((batch * count, dim))?);
    }
    if out.is_empty() {
        return Ok(Tensor::zeros((0, dim), qkv.dtype(), qkv.device())?);
    }
    Ok(Tensor::cat(&out, 0)?)
}

struct Attention {
    lengths: SequenceLengths,
    num_heads: usize,
}

/// Query, key and value of one head of one sequence, (n, head dim) each.
struct Head {
    tokens: usize,
    dim: usize,
    parts: [Vec<f32>; 3],
}

impl Head {
    /// Copies head `head` of the sequence `qkv` (n, 3 C) out; the query is scaled on the way.
    fn gather(qkv: &[f32], num_heads: usize, head: usize, width: usize) -> Self {
        let (tokens, dim) = (qkv.len() / width, width / 3 / num_heads);
        let parts = std::array::from_fn(|part| {
            let start = part * (width / 3) + head * dim;
            columns(qkv, width, start..start + dim)
        });
        let mut head = Self { tokens, dim, parts };
        let scale = head.scale();
        head.parts[0].iter_mut().for_each(|x| *x *= scale);
        head
    }

    fn scale(&self) -> f32 {
        (self.dim as f32).powf(-0.5)
    }

    fn part(&self, part: usize) -> Operand<'_> {
        Operand::new(&self.parts[part], self.tokens, self.dim)
    }

    /// Softmax of the scaled scores, (n, n).
    fn weights(&self) -> Vec<f32> {
        let mut weights = vec![0f32; self.tokens * self.tokens];
        matmul_f32(self.part(0), self.part(1).t(), &mut weights);
        for row in weights.chunks_exact_mut(self.tokens) {
            elementwise::softmax(row);
        }
        weights
    }

    fn forward(&self) -> Vec<f32> {
        let mut out = vec![0f32; self.tokens * self.dim];
        matmul_f32(self.square(&self.weights()), self.part(2), &mut out);
        out
    }

    /// Gradients of query, key and value from the gradient of the output.
    fn backward(&self, grad: &[f32]) -> [Vec<f32>; 3] {
        let zeros = || vec![0f32; self.tokens * self.dim];
        let (mut d_query, mut d_key, mut d_value) = (zeros(), zeros(), zeros());
        let grad = Operand::new(grad, self.tokens, self.dim);
        let weights = self.weights();
        matmul_f32(self.square(&weights).t(), grad, &mut d_value);
        let mut d_scores = vec![0f32; self.tokens * self.tokens];
        matmul_f32(grad, self.part(2).t(), &mut d_scores);
        let rows = d_scores.chunks_exact_mut(self.tokens).zip(weights.chunks_exact(self.tokens));
        for (d_scores, weights) in rows {
            elementwise::softmax_backward(d_scores, weights);
        }
        matmul_f32(self.square(&d_scores), self.part(1), &mut d_query);
        // The stored query is scaled already; its own gradient is not.
        matmul_f32(self.square(&d_scores).t(), self.part(0), &mut d_key);
        let scale = self.scale();
        d_query.iter_mut().for_each(|x| *x *= scale);
        [d_query, d_key, d_value]
    }

    fn square<'a>(&self, values: &'a [f32]) -> Operand<'a> {
        Operand::new(values, self.tokens, self.tokens)
    }
}

impl Attention {
    /// Runs `work` on every (sequence, head) in parallel; results in order, sequences outermost.
    fn map<T: Send>(
        &self,
        qkv: &[f32],
        width: usize,
        work: impl Fn(Range<usize>, usize, Head) -> T + Sync,
    ) -> Vec<(Range<usize>, usize, T)> {
        let tasks: Vec<(Range<usize>, usize)> = self
            .lengths
            .ranges()
            .filter(|rows| !rows.is_empty())
            .flat_map(|rows| (0..self.num_heads).map(move |head| (rows.clone(), head)))
            .collect();
        tasks
            .into_par_iter()
            .map(|(rows, head)| {
                let sequence = &qkv[rows.start * width..rows.end * width];
                let gathered = Head::gather(sequence, self.num_heads, head, width);
                let result = work(rows.clone(), head, gathered);
                (rows, head, result)
            })
            .collect()
    }
}

/// Columns `range` of a matrix of rows of `width` values.
fn columns(matrix: &[f32], width: usize, range: Range<usize>) -> Vec<f32> {
    let mut values = Vec::with_capacity(matrix.len() / width * range.len());
    for row in matrix.chunks_exact(width) {
        values.extend_from_slice(&row[range.clone()]);
    }
    values
}

/// Writes (n, dim) values into columns `column..column + dim` of `rows` of a matrix.
fn scatter(out: &mut [f32], width: usize, rows: Range<usize>, column: usize, values: &[f32]) {
    let dim = values.len() / rows.len();
    for (row, values) in rows.zip(values.chunks_exact(dim)) {
        out[row * width + column..][..dim].copy_from_slice(values);
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "packed-attention"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (tokens, width) = layout.shape().dims2()?;
        let (dim, head_dim) = (width / 3, width / 3 / self.num_heads);
        let mut out = vec![0f32; tokens * dim];
        for (rows, head, values) in
            self.map(slice(storage, layout)?, width, |_, _, head| head.forward())
        {
            scatter(&mut out, dim, rows, head * head_dim, &values);
        }
        Ok((CpuStorage::F32(out), (tokens, dim).into()))
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let (tokens, width) = qkv.dims2()?;
        let (dim, head_dim) = (width / 3, width / 3 / self.num_heads);
        let mut out = vec![0f32; tokens * width];
        let heads = with_values(grad, |grad| {
            with_values(qkv, |qkv| {
                Ok(self.map(qkv, width, |rows, head, gathered| {
                    let grad = &grad[rows.start * dim..rows.end * dim];
                    gathered.backward(&columns(grad, dim, head * head_dim..(head + 1) * head_dim))
                }))
            })
        })?;
        for (rows, head, parts) in heads {
            for (part, values) in parts.iter().enumerate() {
                scatter(&mut out, width, rows.clone(), part * dim + head * head_dim, values);
            }
        }
        Ok(Some(tensor(out, (tokens, width))?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn relative(a: &Tensor, b: &Tensor) -> Result<f32> {
        let largest = |t: &Tensor| -> Result<f32> { Ok(t.abs()?.max_all()?.to_scalar()?) };
        Ok(largest(&(a - b)?)? / largest(b)?)
    }

    #[test]
    fn values_and_gradients_equal_those_of_materialised_attention() -> Result<()> {
        let (cpu, heads, dim) = (Device::Cpu, 3, 48);
        let lengths = SequenceLengths::new([1, 17, 50, 50, 0, 2]);
        let qkv = Var::randn(0f32, 1.5, (lengths.total(), 3 * dim), &cpu)?;
        let upstream = Tensor::randn(0f32, 1.0, (lengths.total(), dim), &cpu)?;
        let gradient = |out: &Tensor| -> Result<Option<Tensor>> {
            Ok((out * &upstream)?.sum_all()?.backward()?.get(&qkv).cloned())
        };
        let ours = attention(&qkv, &lengths, heads)?;
        let plain = materialised_attention(&qkv, &lengths, heads)?;
        assert!(relative(&ours, &plain)? < 1e-5);
        let (ours, plain) = (gradient(&ours)?, gradient(&plain)?);
        let (Some(ours), Some(plain)) = (ours, plain) else { panic!("no gradient") };
        assert!(relative(&ours, &plain)? < 1e-5);
        Ok(())
    }

    #[test]
    fn packing_changes_no_bit() -> Result<()> {
        let parts = [17, 5, 33];
        let all = Tensor::randn(0f32, 1.0, (55, 3 * 32), &Device::Cpu)?;
        let lengths = SequenceLengths::new(parts);
        let packed = attention(&all, &lengths, 2)?.to_vec2::<f32>()?;
        let mut apart = Vec::new();
        for rows in lengths.ranges() {
            let own = SequenceLengths::new([rows.len()]);
            let part = attention(&all.narrow(0, rows.start, rows.len())?, &own, 2)?;
            apart.extend(part.to_vec2::<f32>()?);
        }
        assert_eq!(packed, apart);
        Ok(())
    }

    #[test]
    fn lengths_that_do_not_add_up_are_an_error() -> Result<()> {
        let qkv = Tensor::zeros((5, 24), candle_core::DType::F32, &Device::Cpu)?;
        let message =
            attention(&qkv, &SequenceLengths::new([2, 2]), 2).err().map(|e| e.to_string());
        assert!(message.is_some_and(|m| m.contains("hold 4 tokens")));
        assert!(attention(&qkv, &SequenceLengths::new([5]), 3).is_err());
        Ok(())
    }
}
