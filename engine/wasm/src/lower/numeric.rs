//! Scalar arithmetic, comparisons and conversions.
//!
//! Enters: operands. Leaves: one or two IR instructions each. Never here: vectors, memory.

use super::LowerError;
use super::func::Translator;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::immediates::{Ieee32, Ieee64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types};
use wasmparser::Operator;

impl Translator<'_, '_> {
    fn unary(&mut self, make: impl FnOnce(&mut Self, Value) -> Value) -> Result<(), LowerError> {
        let x = self.pop()?;
        let value = make(self, x);
        self.push(value);
        Ok(())
    }

    fn binary(&mut self, make: impl FnOnce(&mut Self, Value, Value) -> Value) -> Result<(), LowerError> {
        let y = self.pop()?;
        let x = self.pop()?;
        let value = make(self, x, y);
        self.push(value);
        Ok(())
    }

    fn compare_int(&mut self, condition: IntCC) -> Result<(), LowerError> {
        self.binary(|t, x, y| {
            let bit = t.b.ins().icmp(condition, x, y);
            t.b.ins().uextend(types::I32, bit)
        })
    }

    fn compare_float(&mut self, condition: FloatCC) -> Result<(), LowerError> {
        self.binary(|t, x, y| {
            let bit = t.b.ins().fcmp(condition, x, y);
            t.b.ins().uextend(types::I32, bit)
        })
    }

    fn is_zero(&mut self) -> Result<(), LowerError> {
        self.unary(|t, x| {
            let ty = t.b.func.dfg.value_type(x);
            let zero = t.b.ins().iconst(ty, 0);
            let bit = t.b.ins().icmp(IntCC::Equal, x, zero);
            t.b.ins().uextend(types::I32, bit)
        })
    }

    fn sign_extend(&mut self, from: Type, to: Type) -> Result<(), LowerError> {
        self.unary(|t, x| {
            let low = t.b.ins().ireduce(from, x);
            t.b.ins().sextend(to, low)
        })
    }

    fn reinterpret(&mut self, to: Type) -> Result<(), LowerError> {
        self.unary(|t, x| t.b.ins().bitcast(to, MemFlagsData::new(), x))
    }

    /// Scalar operators.
    pub fn numeric_operator(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        Ok(self.constant(op) || self.integer(op)? || self.comparison(op)? || self.float(op)? || self.conversion(op)?)
    }

    fn constant(&mut self, op: &Operator<'_>) -> bool {
        let value = match op {
            Operator::I32Const { value } => self.b.ins().iconst(types::I32, i64::from(*value as u32)),
            Operator::I64Const { value } => self.b.ins().iconst(types::I64, *value),
            Operator::F32Const { value } => self.b.ins().f32const(Ieee32::with_bits(value.bits())),
            Operator::F64Const { value } => self.b.ins().f64const(Ieee64::with_bits(value.bits())),
            _ => return false,
        };
        self.push(value);
        true
    }

    fn integer(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        use Operator as O;
        match op {
            O::I32Add | O::I64Add => self.binary(|t, x, y| t.b.ins().iadd(x, y))?,
            O::I32Sub | O::I64Sub => self.binary(|t, x, y| t.b.ins().isub(x, y))?,
            O::I32Mul | O::I64Mul => self.binary(|t, x, y| t.b.ins().imul(x, y))?,
            O::I32DivS | O::I64DivS => self.binary(|t, x, y| t.b.ins().sdiv(x, y))?,
            O::I32DivU | O::I64DivU => self.binary(|t, x, y| t.b.ins().udiv(x, y))?,
            O::I32RemS | O::I64RemS => self.binary(|t, x, y| t.b.ins().srem(x, y))?,
            O::I32RemU | O::I64RemU => self.binary(|t, x, y| t.b.ins().urem(x, y))?,
            O::I32And | O::I64And => self.binary(|t, x, y| t.b.ins().band(x, y))?,
            O::I32Or | O::I64Or => self.binary(|t, x, y| t.b.ins().bor(x, y))?,
            O::I32Xor | O::I64Xor => self.binary(|t, x, y| t.b.ins().bxor(x, y))?,
            O::I32Shl | O::I64Shl => self.binary(|t, x, y| t.b.ins().ishl(x, y))?,
            O::I32ShrS | O::I64ShrS => self.binary(|t, x, y| t.b.ins().sshr(x, y))?,
            O::I32ShrU | O::I64ShrU => self.binary(|t, x, y| t.b.ins().ushr(x, y))?,
            O::I32Rotl | O::I64Rotl => self.binary(|t, x, y| t.b.ins().rotl(x, y))?,
            O::I32Rotr | O::I64Rotr => self.binary(|t, x, y| t.b.ins().rotr(x, y))?,
            O::I32Clz | O::I64Clz => self.unary(|t, x| t.b.ins().clz(x))?,
            O::I32Ctz | O::I64Ctz => self.unary(|t, x| t.b.ins().ctz(x))?,
            O::I32Popcnt | O::I64Popcnt => self.unary(|t, x| t.b.ins().popcnt(x))?,
            O::I32Eqz | O::I64Eqz => self.is_zero()?,
            O::I32Extend8S => self.sign_extend(types::I8, types::I32)?,
            O::I32Extend16S => self.sign_extend(types::I16, types::I32)?,
            O::I64Extend8S => self.sign_extend(types::I8, types::I64)?,
            O::I64Extend16S => self.sign_extend(types::I16, types::I64)?,
            O::I64Extend32S => self.sign_extend(types::I32, types::I64)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn comparison(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        use Operator as O;
        match op {
            O::I32Eq | O::I64Eq => self.compare_int(IntCC::Equal)?,
            O::I32Ne | O::I64Ne => self.compare_int(IntCC::NotEqual)?,
            O::I32LtS | O::I64LtS => self.compare_int(IntCC::SignedLessThan)?,
            O::I32LtU | O::I64LtU => self.compare_int(IntCC::UnsignedLessThan)?,
            O::I32GtS | O::I64GtS => self.compare_int(IntCC::SignedGreaterThan)?,
            O::I32GtU | O::I64GtU => self.compare_int(IntCC::UnsignedGreaterThan)?,
            O::I32LeS | O::I64LeS => self.compare_int(IntCC::SignedLessThanOrEqual)?,
            O::I32LeU | O::I64LeU => self.compare_int(IntCC::UnsignedLessThanOrEqual)?,
            O::I32GeS | O::I64GeS => self.compare_int(IntCC::SignedGreaterThanOrEqual)?,
            O::I32GeU | O::I64GeU => self.compare_int(IntCC::UnsignedGreaterThanOrEqual)?,
            O::F32Eq | O::F64Eq => self.compare_float(FloatCC::Equal)?,
            O::F32Ne | O::F64Ne => self.compare_float(FloatCC::NotEqual)?,
            O::F32Lt | O::F64Lt => self.compare_float(FloatCC::LessThan)?,
            O::F32Gt | O::F64Gt => self.compare_float(FloatCC::GreaterThan)?,
            O::F32Le | O::F64Le => self.compare_float(FloatCC::LessThanOrEqual)?,
            O::F32Ge | O::F64Ge => self.compare_float(FloatCC::GreaterThanOrEqual)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn float(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        use Operator as O;
        match op {
            O::F32Add | O::F64Add => self.binary(|t, x, y| t.b.ins().fadd(x, y))?,
            O::F32Sub | O::F64Sub => self.binary(|t, x, y| t.b.ins().fsub(x, y))?,
            O::F32Mul | O::F64Mul => self.binary(|t, x, y| t.b.ins().fmul(x, y))?,
            O::F32Div | O::F64Div => self.binary(|t, x, y| t.b.ins().fdiv(x, y))?,
            O::F32Min | O::F64Min => self.binary(|t, x, y| t.b.ins().fmin(x, y))?,
            O::F32Max | O::F64Max => self.binary(|t, x, y| t.b.ins().fmax(x, y))?,
            O::F32Copysign | O::F64Copysign => self.binary(|t, x, y| t.b.ins().fcopysign(x, y))?,
            O::F32Abs | O::F64Abs => self.unary(|t, x| t.b.ins().fabs(x))?,
            O::F32Neg | O::F64Neg => self.unary(|t, x| t.b.ins().fneg(x))?,
            O::F32Sqrt | O::F64Sqrt => self.unary(|t, x| t.b.ins().sqrt(x))?,
            O::F32Ceil | O::F64Ceil => self.unary(|t, x| t.b.ins().ceil(x))?,
            O::F32Floor | O::F64Floor => self.unary(|t, x| t.b.ins().floor(x))?,
            O::F32Trunc | O::F64Trunc => self.unary(|t, x| t.b.ins().trunc(x))?,
            O::F32Nearest | O::F64Nearest => self.unary(|t, x| t.b.ins().nearest(x))?,
            O::F32DemoteF64 => self.unary(|t, x| t.b.ins().fdemote(types::F32, x))?,
            O::F64PromoteF32 => self.unary(|t, x| t.b.ins().fpromote(types::F64, x))?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn conversion(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        use Operator as O;
        use types::{F32, F64, I32, I64};
        match op {
            O::I32WrapI64 => self.unary(|t, x| t.b.ins().ireduce(I32, x))?,
            O::I64ExtendI32S => self.unary(|t, x| t.b.ins().sextend(I64, x))?,
            O::I64ExtendI32U => self.unary(|t, x| t.b.ins().uextend(I64, x))?,
            O::I32TruncF32S | O::I32TruncF64S => self.unary(|t, x| t.b.ins().fcvt_to_sint(I32, x))?,
            O::I32TruncF32U | O::I32TruncF64U => self.unary(|t, x| t.b.ins().fcvt_to_uint(I32, x))?,
            O::I64TruncF32S | O::I64TruncF64S => self.unary(|t, x| t.b.ins().fcvt_to_sint(I64, x))?,
            O::I64TruncF32U | O::I64TruncF64U => self.unary(|t, x| t.b.ins().fcvt_to_uint(I64, x))?,
            O::I32TruncSatF32S | O::I32TruncSatF64S => self.unary(|t, x| t.b.ins().fcvt_to_sint_sat(I32, x))?,
            O::I32TruncSatF32U | O::I32TruncSatF64U => self.unary(|t, x| t.b.ins().fcvt_to_uint_sat(I32, x))?,
            O::I64TruncSatF32S | O::I64TruncSatF64S => self.unary(|t, x| t.b.ins().fcvt_to_sint_sat(I64, x))?,
            O::I64TruncSatF32U | O::I64TruncSatF64U => self.unary(|t, x| t.b.ins().fcvt_to_uint_sat(I64, x))?,
            O::F32ConvertI32S | O::F32ConvertI64S => self.unary(|t, x| t.b.ins().fcvt_from_sint(F32, x))?,
            O::F32ConvertI32U | O::F32ConvertI64U => self.unary(|t, x| t.b.ins().fcvt_from_uint(F32, x))?,
            O::F64ConvertI32S | O::F64ConvertI64S => self.unary(|t, x| t.b.ins().fcvt_from_sint(F64, x))?,
            O::F64ConvertI32U | O::F64ConvertI64U => self.unary(|t, x| t.b.ins().fcvt_from_uint(F64, x))?,
            O::I32ReinterpretF32 => self.reinterpret(I32)?,
            O::I64ReinterpretF64 => self.reinterpret(I64)?,
            O::F32ReinterpretI32 => self.reinterpret(F32)?,
            O::F64ReinterpretI64 => self.reinterpret(F64)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}
