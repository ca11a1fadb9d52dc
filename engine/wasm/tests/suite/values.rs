//! Values of scripts, and what a script expects of a value.

use cyclotron_wasm::runtime::Value;
use wast::core::{AbstractHeapType, HeapType, NanPattern, V128Pattern, WastArgCore, WastRetCore};
use wast::{WastArg, WastRet};

/// An argument, if it is of a kind that we have.
pub fn argument(arg: &WastArg<'_>) -> Option<Value> {
    let WastArg::Core(arg) = arg else { return None };
    Some(match arg {
        WastArgCore::I32(value) => Value::I32(*value),
        WastArgCore::I64(value) => Value::I64(*value),
        WastArgCore::F32(value) => Value::F32(value.bits),
        WastArgCore::F64(value) => Value::F64(value.bits),
        WastArgCore::V128(value) => Value::V128(u128::from_le_bytes(value.to_le_bytes())),
        WastArgCore::RefNull(HeapType::Abstract { ty: AbstractHeapType::Extern, .. }) => Value::ExternRef(None),
        WastArgCore::RefNull(HeapType::Abstract { ty: AbstractHeapType::Func, .. }) => Value::FuncRef(None),
        WastArgCore::RefExtern(value) => Value::ExternRef(Some(*value)),
        _ => return None,
    })
}

/// Whether a value is what a script expects.
pub fn matches(value: &Value, expected: &WastRet<'_>) -> bool {
    let WastRet::Core(expected) = expected else { return false };
    core_matches(value, expected)
}

fn core_matches(value: &Value, expected: &WastRetCore<'_>) -> bool {
    match (value, expected) {
        (Value::I32(value), WastRetCore::I32(expected)) => value == expected,
        (Value::I64(value), WastRetCore::I64(expected)) => value == expected,
        (Value::F32(bits), WastRetCore::F32(expected)) => f32_matches(*bits, expected),
        (Value::F64(bits), WastRetCore::F64(expected)) => f64_matches(*bits, expected),
        (Value::V128(bits), WastRetCore::V128(expected)) => v128_matches(*bits, expected),
        (Value::FuncRef(None) | Value::ExternRef(None), WastRetCore::RefNull(_)) => true,
        (Value::FuncRef(Some(_)), WastRetCore::RefFunc(None)) => true,
        (Value::ExternRef(Some(_)), WastRetCore::RefExtern(None)) => true,
        (Value::ExternRef(Some(value)), WastRetCore::RefExtern(Some(expected))) => value == expected,
        (_, WastRetCore::Either(cases)) => cases.iter().any(|case| core_matches(value, case)),
        _ => false,
    }
}

fn f32_matches(bits: u32, expected: &NanPattern<wast::token::F32>) -> bool {
    match expected {
        NanPattern::CanonicalNan => bits & 0x7fff_ffff == 0x7fc0_0000,
        NanPattern::ArithmeticNan => bits & 0x7fc0_0000 == 0x7fc0_0000,
        NanPattern::Value(value) => bits == value.bits,
    }
}

fn f64_matches(bits: u64, expected: &NanPattern<wast::token::F64>) -> bool {
    match expected {
        NanPattern::CanonicalNan => bits & 0x7fff_ffff_ffff_ffff == 0x7ff8_0000_0000_0000,
        NanPattern::ArithmeticNan => bits & 0x7ff8_0000_0000_0000 == 0x7ff8_0000_0000_0000,
        NanPattern::Value(value) => bits == value.bits,
    }
}

fn v128_matches(bits: u128, expected: &V128Pattern) -> bool {
    let lane = |width: usize, ix: usize| (bits >> (width * ix)) as u64 & (u64::MAX >> (64 - width));
    match expected {
        V128Pattern::I8x16(lanes) => lanes.iter().enumerate().all(|(ix, v)| lane(8, ix) == u64::from(*v as u8)),
        V128Pattern::I16x8(lanes) => lanes.iter().enumerate().all(|(ix, v)| lane(16, ix) == u64::from(*v as u16)),
        V128Pattern::I32x4(lanes) => lanes.iter().enumerate().all(|(ix, v)| lane(32, ix) == u64::from(*v as u32)),
        V128Pattern::I64x2(lanes) => lanes.iter().enumerate().all(|(ix, v)| lane(64, ix) == *v as u64),
        V128Pattern::F32x4(lanes) => lanes.iter().enumerate().all(|(ix, v)| f32_matches(lane(32, ix) as u32, v)),
        V128Pattern::F64x2(lanes) => lanes.iter().enumerate().all(|(ix, v)| f64_matches(lane(64, ix), v)),
    }
}
