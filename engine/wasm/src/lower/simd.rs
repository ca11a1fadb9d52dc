//! 128-bit vectors, fixed width.
//!
//! Enters: operands that carry any lane type. Leaves: vectors with the lane type of their operator; what crosses blocks, calls, locals and
//! globals is cast to `I8X16`. Never here: relaxed operators, whose results may differ between processors.

use super::LowerError;
use super::func::Translator;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use types::{F32X4, F64X2, I8X16, I16X8, I32X4, I64X2};
use wasmparser::{MemArg, Operator};

/// One of the four integer shapes, in the order of the operators' names.
macro_rules! by_shape {
    ($op:expr; $($b:ident $h:ident $w:ident $d:ident),* => $body:expr) => {
        match $op {
            $(Operator::$b => Some(I8X16), Operator::$h => Some(I16X8), Operator::$w => Some(I32X4), Operator::$d => Some(I64X2),)*
            _ => None,
        }
        .map($body)
    };
}

impl Translator<'_, '_> {
    fn vector_unary(&mut self, ty: Type, make: impl FnOnce(&mut Self, Value) -> Value) -> Result<(), LowerError> {
        let x = self.pop_vector(ty)?;
        let value = make(self, x);
        self.push(value);
        Ok(())
    }

    fn vector_binary(
        &mut self,
        ty: Type,
        make: impl FnOnce(&mut Self, Value, Value) -> Value,
    ) -> Result<(), LowerError> {
        let y = self.pop_vector(ty)?;
        let x = self.pop_vector(ty)?;
        let value = make(self, x, y);
        self.push(value);
        Ok(())
    }

    fn vector_shift(
        &mut self,
        ty: Type,
        make: impl FnOnce(&mut Self, Value, Value) -> Value,
    ) -> Result<(), LowerError> {
        let amount = self.pop()?;
        let x = self.pop_vector(ty)?;
        let value = make(self, x, amount);
        self.push(value);
        Ok(())
    }

    fn splat(&mut self, ty: Type) -> Result<(), LowerError> {
        let x = self.pop()?;
        let x = if ty.lane_bits() < 32 { self.b.ins().ireduce(ty.lane_type(), x) } else { x };
        let value = self.b.ins().splat(ty, x);
        self.push(value);
        Ok(())
    }

    fn extract(&mut self, ty: Type, lane: u8, signed: bool) -> Result<(), LowerError> {
        self.vector_unary(ty, |t, x| {
            let value = t.b.ins().extractlane(x, lane);
            match (ty.lane_bits() < 32, signed) {
                (false, _) => value,
                (true, true) => t.b.ins().sextend(types::I32, value),
                (true, false) => t.b.ins().uextend(types::I32, value),
            }
        })
    }

    fn replace(&mut self, ty: Type, lane: u8) -> Result<(), LowerError> {
        let x = self.pop()?;
        let x = if ty.lane_bits() < 32 { self.b.ins().ireduce(ty.lane_type(), x) } else { x };
        self.vector_unary(ty, |t, vector| t.b.ins().insertlane(vector, x, lane))
    }

    fn compare_lanes(&mut self, ty: Type, condition: IntCC) -> Result<(), LowerError> {
        self.vector_binary(ty, |t, x, y| t.b.ins().icmp(condition, x, y))
    }

    fn compare_float_lanes(&mut self, ty: Type, condition: FloatCC) -> Result<(), LowerError> {
        self.vector_binary(ty, |t, x, y| t.b.ins().fcmp(condition, x, y))
    }

    /// `pmin` and `pmax`: the second operand where `choose` says so, else the first; bits unchanged.
    fn pseudo(&mut self, ty: Type, swap: bool) -> Result<(), LowerError> {
        self.vector_binary(ty, |t, x, y| {
            let (low, high) = if swap { (y, x) } else { (x, y) };
            let take_second = t.b.ins().fcmp(FloatCC::LessThan, low, high);
            let take_second = t.as_vector(take_second, ty);
            t.b.ins().bitselect(take_second, y, x)
        })
    }

    fn bit_as_i32(&mut self, bit: Value) -> Value {
        self.b.ins().uextend(types::I32, bit)
    }

    /// Operators on vectors.
    pub fn simd_operator(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        Ok(self.lanes(op)?
            || self.bits(op)?
            || self.integer_compare(op)?
            || self.integer_lanes(op)?
            || self.wide_lanes(op)?
            || self.float_lanes(op)?
            || self.vector_memory(op)?)
    }

    fn lanes(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        use Operator as O;
        match op {
            O::V128Const { value } => {
                let value = self.v128_const(u128::from_le_bytes(*value.bytes()));
                self.push(value);
            }
            O::I8x16Shuffle { lanes } => {
                let mask = self.b.func.dfg.immediates.push(lanes.to_vec().into());
                self.vector_binary(I8X16, |t, x, y| t.b.ins().shuffle(x, y, mask))?;
            }
            O::I8x16Swizzle => self.vector_binary(I8X16, |t, x, y| t.b.ins().swizzle(x, y))?,
            O::I8x16Splat => self.splat(I8X16)?,
            O::I16x8Splat => self.splat(I16X8)?,
            O::I32x4Splat => self.splat(I32X4)?,
            O::I64x2Splat => self.splat(I64X2)?,
            O::F32x4Splat => self.splat(F32X4)?,
            O::F64x2Splat => self.splat(F64X2)?,
            O::I8x16ExtractLaneS { lane } => self.extract(I8X16, *lane, true)?,
            O::I8x16ExtractLaneU { lane } => self.extract(I8X16, *lane, false)?,
            O::I16x8ExtractLaneS { lane } => self.extract(I16X8, *lane, true)?,
            O::I16x8ExtractLaneU { lane } => self.extract(I16X8, *lane, false)?,
            O::I32x4ExtractLane { lane } => self.extract(I32X4, *lane, false)?,
            O::I64x2ExtractLane { lane } => self.extract(I64X2, *lane, false)?,
            O::F32x4ExtractLane { lane } => self.extract(F32X4, *lane, false)?,
            O::F64x2ExtractLane { lane } => self.extract(F64X2, *lane, false)?,
            O::I8x16ReplaceLane { lane } => self.replace(I8X16, *lane)?,
            O::I16x8ReplaceLane { lane } => self.replace(I16X8, *lane)?,
            O::I32x4ReplaceLane { lane } => self.replace(I32X4, *lane)?,
            O::I64x2ReplaceLane { lane } => self.replace(I64X2, *lane)?,
            O::F32x4ReplaceLane { lane } => self.replace(F32X4, *lane)?,
            O::F64x2ReplaceLane { lane } => self.replace(F64X2, *lane)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn bits(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        use Operator as O;
        match op {
            O::V128Not => self.vector_unary(I8X16, |t, x| t.b.ins().bnot(x))?,
            O::V128And => self.vector_binary(I8X16, |t, x, y| t.b.ins().band(x, y))?,
            O::V128AndNot => self.vector_binary(I8X16, |t, x, y| t.b.ins().band_not(x, y))?,
            O::V128Or => self.vector_binary(I8X16, |t, x, y| t.b.ins().bor(x, y))?,
            O::V128Xor => self.vector_binary(I8X16, |t, x, y| t.b.ins().bxor(x, y))?,
            O::V128Bitselect => {
                let mask = self.pop_vector(I8X16)?;
                self.vector_binary(I8X16, |t, x, y| t.b.ins().bitselect(mask, x, y))?;
            }
            O::V128AnyTrue => self.vector_unary(I8X16, |t, x| {
                let bit = t.b.ins().vany_true(x);
                t.bit_as_i32(bit)
            })?,
            _ => {
                let all_true = by_shape!(op; I8x16AllTrue I16x8AllTrue I32x4AllTrue I64x2AllTrue => |ty| {
                    self.vector_unary(ty, |t, x| {
                        let bit = t.b.ins().vall_true(x);
                        t.bit_as_i32(bit)
                    })
                });
                if let Some(done) = all_true {
                    done?;
                    return Ok(true);
                }
                let mask = by_shape!(op; I8x16Bitmask I16x8Bitmask I32x4Bitmask I64x2Bitmask => |ty| {
                    self.vector_unary(ty, |t, x| t.b.ins().vhigh_bits(types::I32, x))
                });
                let Some(done) = mask else { return Ok(false) };
                done?;
            }
        }
        Ok(true)
    }

    fn integer_compare(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        use Operator as O;
        let (ty, condition) = match op {
            O::I8x16Eq => (I8X16, IntCC::Equal),
            O::I16x8Eq => (I16X8, IntCC::Equal),
            O::I32x4Eq => (I32X4, IntCC::Equal),
            O::I64x2Eq => (I64X2, IntCC::Equal),
            O::I8x16Ne => (I8X16, IntCC::NotEqual),
            O::I16x8Ne => (I16X8, IntCC::NotEqual),
            O::I32x4Ne => (I32X4, IntCC::NotEqual),
            O::I64x2Ne => (I64X2, IntCC::NotEqual),
            O::I8x16LtS => (I8X16, IntCC::SignedLessThan),
            O::I16x8LtS => (I16X8, IntCC::SignedLessThan),
            O::I32x4LtS => (I32X4, IntCC::SignedLessThan),
            O::I64x2LtS => (I64X2, IntCC::SignedLessThan),
            O::I8x16LtU => (I8X16, IntCC::UnsignedLessThan),
            O::I16x8LtU => (I16X8, IntCC::UnsignedLessThan),
            O::I32x4LtU => (I32X4, IntCC::UnsignedLessThan),
            O::I8x16GtS => (I8X16, IntCC::SignedGreaterThan),
            O::I16x8GtS => (I16X8, IntCC::SignedGreaterThan),
            O::I32x4GtS => (I32X4, IntCC::SignedGreaterThan),
            O::I64x2GtS => (I64X2, IntCC::SignedGreaterThan),
            O::I8x16GtU => (I8X16, IntCC::UnsignedGreaterThan),
            O::I16x8GtU => (I16X8, IntCC::UnsignedGreaterThan),
            O::I32x4GtU => (I32X4, IntCC::UnsignedGreaterThan),
            O::I8x16LeS => (I8X16, IntCC::SignedLessThanOrEqual),
            O::I16x8LeS => (I16X8, IntCC::SignedLessThanOrEqual),
            O::I32x4LeS => (I32X4, IntCC::SignedLessThanOrEqual),
            O::I64x2LeS => (I64X2, IntCC::SignedLessThanOrEqual),
            O::I8x16LeU => (I8X16, IntCC::UnsignedLessThanOrEqual),
            O::I16x8LeU => (I16X8, IntCC::UnsignedLessThanOrEqual),
            O::I32x4LeU => (I32X4, IntCC::UnsignedLessThanOrEqual),
            O::I8x16GeS => (I8X16, IntCC::SignedGreaterThanOrEqual),
            O::I16x8GeS => (I16X8, IntCC::SignedGreaterThanOrEqual),
            O::I32x4GeS => (I32X4, IntCC::SignedGreaterThanOrEqual),
            O::I64x2GeS => (I64X2, IntCC::SignedGreaterThanOrEqual),
            O::I8x16GeU => (I8X16, IntCC::UnsignedGreaterThanOrEqual),
            O::I16x8GeU => (I16X8, IntCC::UnsignedGreaterThanOrEqual),
            O::I32x4GeU => (I32X4, IntCC::UnsignedGreaterThanOrEqual),
            _ => return Ok(false),
        };
        self.compare_lanes(ty, condition)?;
        Ok(true)
    }

    fn integer_lanes(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        use Operator as O;
        match op {
            O::I8x16Abs => self.vector_unary(I8X16, |t, x| t.b.ins().iabs(x))?,
            O::I16x8Abs => self.vector_unary(I16X8, |t, x| t.b.ins().iabs(x))?,
            O::I32x4Abs => self.vector_unary(I32X4, |t, x| t.b.ins().iabs(x))?,
            O::I64x2Abs => self.vector_unary(I64X2, |t, x| t.b.ins().iabs(x))?,
            O::I8x16Neg => self.vector_unary(I8X16, |t, x| t.b.ins().ineg(x))?,
            O::I16x8Neg => self.vector_unary(I16X8, |t, x| t.b.ins().ineg(x))?,
            O::I32x4Neg => self.vector_unary(I32X4, |t, x| t.b.ins().ineg(x))?,
            O::I64x2Neg => self.vector_unary(I64X2, |t, x| t.b.ins().ineg(x))?,
            O::I8x16Popcnt => self.vector_unary(I8X16, |t, x| t.b.ins().popcnt(x))?,
            O::I8x16Shl => self.vector_shift(I8X16, |t, x, y| t.b.ins().ishl(x, y))?,
            O::I16x8Shl => self.vector_shift(I16X8, |t, x, y| t.b.ins().ishl(x, y))?,
            O::I32x4Shl => self.vector_shift(I32X4, |t, x, y| t.b.ins().ishl(x, y))?,
            O::I64x2Shl => self.vector_shift(I64X2, |t, x, y| t.b.ins().ishl(x, y))?,
            O::I8x16ShrS => self.vector_shift(I8X16, |t, x, y| t.b.ins().sshr(x, y))?,
            O::I16x8ShrS => self.vector_shift(I16X8, |t, x, y| t.b.ins().sshr(x, y))?,
            O::I32x4ShrS => self.vector_shift(I32X4, |t, x, y| t.b.ins().sshr(x, y))?,
            O::I64x2ShrS => self.vector_shift(I64X2, |t, x, y| t.b.ins().sshr(x, y))?,
            O::I8x16ShrU => self.vector_shift(I8X16, |t, x, y| t.b.ins().ushr(x, y))?,
            O::I16x8ShrU => self.vector_shift(I16X8, |t, x, y| t.b.ins().ushr(x, y))?,
            O::I32x4ShrU => self.vector_shift(I32X4, |t, x, y| t.b.ins().ushr(x, y))?,
            O::I64x2ShrU => self.vector_shift(I64X2, |t, x, y| t.b.ins().ushr(x, y))?,
            O::I8x16Add => self.vector_binary(I8X16, |t, x, y| t.b.ins().iadd(x, y))?,
            O::I16x8Add => self.vector_binary(I16X8, |t, x, y| t.b.ins().iadd(x, y))?,
            O::I32x4Add => self.vector_binary(I32X4, |t, x, y| t.b.ins().iadd(x, y))?,
            O::I64x2Add => self.vector_binary(I64X2, |t, x, y| t.b.ins().iadd(x, y))?,
            O::I8x16Sub => self.vector_binary(I8X16, |t, x, y| t.b.ins().isub(x, y))?,
            O::I16x8Sub => self.vector_binary(I16X8, |t, x, y| t.b.ins().isub(x, y))?,
            O::I32x4Sub => self.vector_binary(I32X4, |t, x, y| t.b.ins().isub(x, y))?,
            O::I64x2Sub => self.vector_binary(I64X2, |t, x, y| t.b.ins().isub(x, y))?,
            O::I16x8Mul => self.vector_binary(I16X8, |t, x, y| t.b.ins().imul(x, y))?,
            O::I32x4Mul => self.vector_binary(I32X4, |t, x, y| t.b.ins().imul(x, y))?,
            O::I64x2Mul => self.vector_binary(I64X2, |t, x, y| t.b.ins().imul(x, y))?,
            O::I8x16AddSatS => self.vector_binary(I8X16, |t, x, y| t.b.ins().sadd_sat(x, y))?,
            O::I16x8AddSatS => self.vector_binary(I16X8, |t, x, y| t.b.ins().sadd_sat(x, y))?,
            O::I8x16AddSatU => self.vector_binary(I8X16, |t, x, y| t.b.ins().uadd_sat(x, y))?,
            O::I16x8AddSatU => self.vector_binary(I16X8, |t, x, y| t.b.ins().uadd_sat(x, y))?,
            O::I8x16SubSatS => self.vector_binary(I8X16, |t, x, y| t.b.ins().ssub_sat(x, y))?,
            O::I16x8SubSatS => self.vector_binary(I16X8, |t, x, y| t.b.ins().ssub_sat(x, y))?,
            O::I8x16SubSatU => self.vector_binary(I8X16, |t, x, y| t.b.ins().usub_sat(x, y))?,
            O::I16x8SubSatU => self.vector_binary(I16X8, |t, x, y| t.b.ins().usub_sat(x, y))?,
            O::I8x16MinS => self.vector_binary(I8X16, |t, x, y| t.b.ins().smin(x, y))?,
            O::I16x8MinS => self.vector_binary(I16X8, |t, x, y| t.b.ins().smin(x, y))?,
            O::I32x4MinS => self.vector_binary(I32X4, |t, x, y| t.b.ins().smin(x, y))?,
            O::I8x16MinU => self.vector_binary(I8X16, |t, x, y| t.b.ins().umin(x, y))?,
            O::I16x8MinU => self.vector_binary(I16X8, |t, x, y| t.b.ins().umin(x, y))?,
            O::I32x4MinU => self.vector_binary(I32X4, |t, x, y| t.b.ins().umin(x, y))?,
            O::I8x16MaxS => self.vector_binary(I8X16, |t, x, y| t.b.ins().smax(x, y))?,
            O::I16x8MaxS => self.vector_binary(I16X8, |t, x, y| t.b.ins().smax(x, y))?,
            O::I32x4MaxS => self.vector_binary(I32X4, |t, x, y| t.b.ins().smax(x, y))?,
            O::I8x16MaxU => self.vector_binary(I8X16, |t, x, y| t.b.ins().umax(x, y))?,
            O::I16x8MaxU => self.vector_binary(I16X8, |t, x, y| t.b.ins().umax(x, y))?,
            O::I32x4MaxU => self.vector_binary(I32X4, |t, x, y| t.b.ins().umax(x, y))?,
            O::I8x16AvgrU => self.vector_binary(I8X16, |t, x, y| t.b.ins().avg_round(x, y))?,
            O::I16x8AvgrU => self.vector_binary(I16X8, |t, x, y| t.b.ins().avg_round(x, y))?,
            O::I16x8Q15MulrSatS => self.vector_binary(I16X8, |t, x, y| t.b.ins().sqmul_round_sat(x, y))?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn widen(&mut self, x: Value, signed: bool, high: bool) -> Value {
        match (signed, high) {
            (true, false) => self.b.ins().swiden_low(x),
            (true, true) => self.b.ins().swiden_high(x),
            (false, false) => self.b.ins().uwiden_low(x),
            (false, true) => self.b.ins().uwiden_high(x),
        }
    }

    fn extend_lanes(&mut self, from: Type, signed: bool, high: bool) -> Result<(), LowerError> {
        self.vector_unary(from, |t, x| t.widen(x, signed, high))
    }

    fn multiply_extended(&mut self, from: Type, signed: bool, high: bool) -> Result<(), LowerError> {
        self.vector_binary(from, |t, x, y| {
            let x = t.widen(x, signed, high);
            let y = t.widen(y, signed, high);
            t.b.ins().imul(x, y)
        })
    }

    fn add_pairs(&mut self, from: Type, signed: bool) -> Result<(), LowerError> {
        self.vector_unary(from, |t, x| {
            let low = t.widen(x, signed, false);
            let high = t.widen(x, signed, true);
            t.b.ins().iadd_pairwise(low, high)
        })
    }

    /// Operators between lanes of different widths.
    fn wide_lanes(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        use Operator as O;
        match op {
            O::I8x16NarrowI16x8S => self.vector_binary(I16X8, |t, x, y| t.b.ins().snarrow(x, y))?,
            O::I8x16NarrowI16x8U => self.vector_binary(I16X8, |t, x, y| t.b.ins().unarrow(x, y))?,
            O::I16x8NarrowI32x4S => self.vector_binary(I32X4, |t, x, y| t.b.ins().snarrow(x, y))?,
            O::I16x8NarrowI32x4U => self.vector_binary(I32X4, |t, x, y| t.b.ins().unarrow(x, y))?,
            O::I16x8ExtendLowI8x16S => self.extend_lanes(I8X16, true, false)?,
            O::I16x8ExtendHighI8x16S => self.extend_lanes(I8X16, true, true)?,
            O::I16x8ExtendLowI8x16U => self.extend_lanes(I8X16, false, false)?,
            O::I16x8ExtendHighI8x16U => self.extend_lanes(I8X16, false, true)?,
            O::I32x4ExtendLowI16x8S => self.extend_lanes(I16X8, true, false)?,
            O::I32x4ExtendHighI16x8S => self.extend_lanes(I16X8, true, true)?,
            O::I32x4ExtendLowI16x8U => self.extend_lanes(I16X8, false, false)?,
            O::I32x4ExtendHighI16x8U => self.extend_lanes(I16X8, false, true)?,
            O::I64x2ExtendLowI32x4S => self.extend_lanes(I32X4, true, false)?,
            O::I64x2ExtendHighI32x4S => self.extend_lanes(I32X4, true, true)?,
            O::I64x2ExtendLowI32x4U => self.extend_lanes(I32X4, false, false)?,
            O::I64x2ExtendHighI32x4U => self.extend_lanes(I32X4, false, true)?,
            O::I16x8ExtMulLowI8x16S => self.multiply_extended(I8X16, true, false)?,
            O::I16x8ExtMulHighI8x16S => self.multiply_extended(I8X16, true, true)?,
            O::I16x8ExtMulLowI8x16U => self.multiply_extended(I8X16, false, false)?,
            O::I16x8ExtMulHighI8x16U => self.multiply_extended(I8X16, false, true)?,
            O::I32x4ExtMulLowI16x8S => self.multiply_extended(I16X8, true, false)?,
            O::I32x4ExtMulHighI16x8S => self.multiply_extended(I16X8, true, true)?,
            O::I32x4ExtMulLowI16x8U => self.multiply_extended(I16X8, false, false)?,
            O::I32x4ExtMulHighI16x8U => self.multiply_extended(I16X8, false, true)?,
            O::I64x2ExtMulLowI32x4S => self.multiply_extended(I32X4, true, false)?,
            O::I64x2ExtMulHighI32x4S => self.multiply_extended(I32X4, true, true)?,
            O::I64x2ExtMulLowI32x4U => self.multiply_extended(I32X4, false, false)?,
            O::I64x2ExtMulHighI32x4U => self.multiply_extended(I32X4, false, true)?,
            O::I16x8ExtAddPairwiseI8x16S => self.add_pairs(I8X16, true)?,
            O::I16x8ExtAddPairwiseI8x16U => self.add_pairs(I8X16, false)?,
            O::I32x4ExtAddPairwiseI16x8S => self.add_pairs(I16X8, true)?,
            O::I32x4ExtAddPairwiseI16x8U => self.add_pairs(I16X8, false)?,
            O::I32x4DotI16x8S => self.vector_binary(I16X8, |t, x, y| {
                let mut products = [false, true].map(|high| {
                    let (x, y) = (t.widen(x, true, high), t.widen(y, true, high));
                    t.b.ins().imul(x, y)
                });
                let [low, high] = &mut products;
                t.b.ins().iadd_pairwise(*low, *high)
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn float_lanes(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        use Operator as O;
        match op {
            O::F32x4Eq => self.compare_float_lanes(F32X4, FloatCC::Equal)?,
            O::F64x2Eq => self.compare_float_lanes(F64X2, FloatCC::Equal)?,
            O::F32x4Ne => self.compare_float_lanes(F32X4, FloatCC::NotEqual)?,
            O::F64x2Ne => self.compare_float_lanes(F64X2, FloatCC::NotEqual)?,
            O::F32x4Lt => self.compare_float_lanes(F32X4, FloatCC::LessThan)?,
            O::F64x2Lt => self.compare_float_lanes(F64X2, FloatCC::LessThan)?,
            O::F32x4Gt => self.compare_float_lanes(F32X4, FloatCC::GreaterThan)?,
            O::F64x2Gt => self.compare_float_lanes(F64X2, FloatCC::GreaterThan)?,
            O::F32x4Le => self.compare_float_lanes(F32X4, FloatCC::LessThanOrEqual)?,
            O::F64x2Le => self.compare_float_lanes(F64X2, FloatCC::LessThanOrEqual)?,
            O::F32x4Ge => self.compare_float_lanes(F32X4, FloatCC::GreaterThanOrEqual)?,
            O::F64x2Ge => self.compare_float_lanes(F64X2, FloatCC::GreaterThanOrEqual)?,
            O::F32x4PMin => self.pseudo(F32X4, true)?,
            O::F64x2PMin => self.pseudo(F64X2, true)?,
            O::F32x4PMax => self.pseudo(F32X4, false)?,
            O::F64x2PMax => self.pseudo(F64X2, false)?,
            _ => return Ok(self.float_arithmetic(op)? || self.float_conversion(op)?),
        }
        Ok(true)
    }

    fn float_arithmetic(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        use Operator as O;
        match op {
            O::F32x4Ceil => self.vector_unary(F32X4, |t, x| t.b.ins().ceil(x))?,
            O::F64x2Ceil => self.vector_unary(F64X2, |t, x| t.b.ins().ceil(x))?,
            O::F32x4Floor => self.vector_unary(F32X4, |t, x| t.b.ins().floor(x))?,
            O::F64x2Floor => self.vector_unary(F64X2, |t, x| t.b.ins().floor(x))?,
            O::F32x4Trunc => self.vector_unary(F32X4, |t, x| t.b.ins().trunc(x))?,
            O::F64x2Trunc => self.vector_unary(F64X2, |t, x| t.b.ins().trunc(x))?,
            O::F32x4Nearest => self.vector_unary(F32X4, |t, x| t.b.ins().nearest(x))?,
            O::F64x2Nearest => self.vector_unary(F64X2, |t, x| t.b.ins().nearest(x))?,
            O::F32x4Abs => self.vector_unary(F32X4, |t, x| t.b.ins().fabs(x))?,
            O::F64x2Abs => self.vector_unary(F64X2, |t, x| t.b.ins().fabs(x))?,
            O::F32x4Neg => self.vector_unary(F32X4, |t, x| t.b.ins().fneg(x))?,
            O::F64x2Neg => self.vector_unary(F64X2, |t, x| t.b.ins().fneg(x))?,
            O::F32x4Sqrt => self.vector_unary(F32X4, |t, x| t.b.ins().sqrt(x))?,
            O::F64x2Sqrt => self.vector_unary(F64X2, |t, x| t.b.ins().sqrt(x))?,
            O::F32x4Add => self.vector_binary(F32X4, |t, x, y| t.b.ins().fadd(x, y))?,
            O::F64x2Add => self.vector_binary(F64X2, |t, x, y| t.b.ins().fadd(x, y))?,
            O::F32x4Sub => self.vector_binary(F32X4, |t, x, y| t.b.ins().fsub(x, y))?,
            O::F64x2Sub => self.vector_binary(F64X2, |t, x, y| t.b.ins().fsub(x, y))?,
            O::F32x4Mul => self.vector_binary(F32X4, |t, x, y| t.b.ins().fmul(x, y))?,
            O::F64x2Mul => self.vector_binary(F64X2, |t, x, y| t.b.ins().fmul(x, y))?,
            O::F32x4Div => self.vector_binary(F32X4, |t, x, y| t.b.ins().fdiv(x, y))?,
            O::F64x2Div => self.vector_binary(F64X2, |t, x, y| t.b.ins().fdiv(x, y))?,
            O::F32x4Min => self.vector_binary(F32X4, |t, x, y| t.b.ins().fmin(x, y))?,
            O::F64x2Min => self.vector_binary(F64X2, |t, x, y| t.b.ins().fmin(x, y))?,
            O::F32x4Max => self.vector_binary(F32X4, |t, x, y| t.b.ins().fmax(x, y))?,
            O::F64x2Max => self.vector_binary(F64X2, |t, x, y| t.b.ins().fmax(x, y))?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn float_conversion(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        use Operator as O;
        match op {
            O::I32x4TruncSatF32x4S => self.vector_unary(F32X4, |t, x| t.b.ins().fcvt_to_sint_sat(I32X4, x))?,
            O::I32x4TruncSatF32x4U => self.vector_unary(F32X4, |t, x| t.b.ins().fcvt_to_uint_sat(I32X4, x))?,
            O::I32x4TruncSatF64x2SZero => self.vector_unary(F64X2, |t, x| {
                let wide = t.b.ins().fcvt_to_sint_sat(I64X2, x);
                let zero = t.zero_of(I64X2);
                t.b.ins().snarrow(wide, zero)
            })?,
            O::I32x4TruncSatF64x2UZero => self.vector_unary(F64X2, |t, x| {
                let wide = t.b.ins().fcvt_to_uint_sat(I64X2, x);
                let zero = t.zero_of(I64X2);
                t.b.ins().uunarrow(wide, zero)
            })?,
            O::F32x4ConvertI32x4S => self.vector_unary(I32X4, |t, x| t.b.ins().fcvt_from_sint(F32X4, x))?,
            O::F32x4ConvertI32x4U => self.vector_unary(I32X4, |t, x| t.b.ins().fcvt_from_uint(F32X4, x))?,
            O::F64x2ConvertLowI32x4S => self.vector_unary(I32X4, |t, x| {
                let wide = t.b.ins().swiden_low(x);
                t.b.ins().fcvt_from_sint(F64X2, wide)
            })?,
            O::F64x2ConvertLowI32x4U => self.vector_unary(I32X4, |t, x| {
                let wide = t.b.ins().uwiden_low(x);
                t.b.ins().fcvt_from_uint(F64X2, wide)
            })?,
            O::F32x4DemoteF64x2Zero => self.vector_unary(F64X2, |t, x| t.b.ins().fvdemote(x))?,
            O::F64x2PromoteLowF32x4 => self.vector_unary(F32X4, |t, x| t.b.ins().fvpromote_low(x))?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn vector_memory(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        use Operator as O;
        match op {
            O::V128Load8x8S { memarg } | O::V128Load8x8U { memarg } => {
                self.load_extended(memarg, I16X8, matches!(op, O::V128Load8x8S { .. }))?;
            }
            O::V128Load16x4S { memarg } | O::V128Load16x4U { memarg } => {
                self.load_extended(memarg, I32X4, matches!(op, O::V128Load16x4S { .. }))?;
            }
            O::V128Load32x2S { memarg } | O::V128Load32x2U { memarg } => {
                self.load_extended(memarg, I64X2, matches!(op, O::V128Load32x2S { .. }))?;
            }
            O::V128Load8Splat { memarg } => self.load_made(memarg, I8X16, |t, x| t.b.ins().splat(I8X16, x))?,
            O::V128Load16Splat { memarg } => self.load_made(memarg, I16X8, |t, x| t.b.ins().splat(I16X8, x))?,
            O::V128Load32Splat { memarg } => self.load_made(memarg, I32X4, |t, x| t.b.ins().splat(I32X4, x))?,
            O::V128Load64Splat { memarg } => self.load_made(memarg, I64X2, |t, x| t.b.ins().splat(I64X2, x))?,
            O::V128Load32Zero { memarg } => {
                self.load_made(memarg, I32X4, |t, x| t.b.ins().scalar_to_vector(I32X4, x))?
            }
            O::V128Load64Zero { memarg } => {
                self.load_made(memarg, I64X2, |t, x| t.b.ins().scalar_to_vector(I64X2, x))?
            }
            O::V128Load8Lane { memarg, lane } => self.load_lane(memarg, I8X16, *lane)?,
            O::V128Load16Lane { memarg, lane } => self.load_lane(memarg, I16X8, *lane)?,
            O::V128Load32Lane { memarg, lane } => self.load_lane(memarg, I32X4, *lane)?,
            O::V128Load64Lane { memarg, lane } => self.load_lane(memarg, I64X2, *lane)?,
            O::V128Store8Lane { memarg, lane } => self.store_lane(memarg, I8X16, *lane)?,
            O::V128Store16Lane { memarg, lane } => self.store_lane(memarg, I16X8, *lane)?,
            O::V128Store32Lane { memarg, lane } => self.store_lane(memarg, I32X4, *lane)?,
            O::V128Store64Lane { memarg, lane } => self.store_lane(memarg, I64X2, *lane)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Loads half a vector and widens its lanes to those of `ty`.
    fn load_extended(&mut self, memarg: &MemArg, ty: Type, signed: bool) -> Result<(), LowerError> {
        let address = self.pop_address(memarg)?;
        let flags = self.heap_flags();
        let value = match self.place(&address) {
            None => self.any_value(ty),
            Some((base, at)) => {
                let ins = self.b.ins();
                match (ty, signed) {
                    (I16X8, true) => ins.sload8x8(flags, base, at),
                    (I16X8, false) => ins.uload8x8(flags, base, at),
                    (I32X4, true) => ins.sload16x4(flags, base, at),
                    (I32X4, false) => ins.uload16x4(flags, base, at),
                    (_, true) => ins.sload32x2(flags, base, at),
                    (_, false) => ins.uload32x2(flags, base, at),
                }
            }
        };
        self.push(value);
        Ok(())
    }

    /// Loads one lane of `ty` and makes a vector of it.
    fn load_made(
        &mut self,
        memarg: &MemArg,
        ty: Type,
        make: impl FnOnce(&mut Self, Value) -> Value,
    ) -> Result<(), LowerError> {
        let address = self.pop_address(memarg)?;
        let lane = self.load_scalar(&address, ty.lane_type());
        let value = make(self, lane);
        self.push(value);
        Ok(())
    }

    fn load_scalar(&mut self, address: &super::memory::Address, ty: Type) -> Value {
        let flags = self.heap_flags();
        match self.place(address) {
            None => self.any_value(ty),
            Some((base, at)) => self.b.ins().load(ty, flags, base, at),
        }
    }

    fn load_lane(&mut self, memarg: &MemArg, ty: Type, lane: u8) -> Result<(), LowerError> {
        let vector = self.pop_vector(ty)?;
        let address = self.pop_address(memarg)?;
        let value = self.load_scalar(&address, ty.lane_type());
        let value = self.b.ins().insertlane(vector, value, lane);
        self.push(value);
        Ok(())
    }

    fn store_lane(&mut self, memarg: &MemArg, ty: Type, lane: u8) -> Result<(), LowerError> {
        let vector = self.pop_vector(ty)?;
        let address = self.pop_address(memarg)?;
        self.card_test(&address)?;
        let flags = self.heap_flags();
        if let Some((base, at)) = self.place(&address) {
            let value = self.b.ins().extractlane(vector, lane);
            self.b.ins().store(flags, value, base, at);
        }
        Ok(())
    }
}
