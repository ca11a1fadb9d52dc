//! Every text is valid WGSL, and its structures lie in memory as the host's do.
#![allow(clippy::unwrap_used, reason = "a test: a failure is a panic")]

use cyclotron_shaders::{
    Curve, EcdsaJob, Ed25519Job, LevelJob, LevelParams, Params, Program, WORKGROUP, Width, ecdsa, ed25519, level,
};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use std::mem::offset_of;

/// A structure of the host: its size, and where its members begin.
struct Layout {
    size: usize,
    members: &'static [(&'static str, usize)],
}

const PARAMS: Layout = Layout {
    size: size_of::<Params>(),
    members: &[
        ("count", offset_of!(Params, count)),
        ("places", offset_of!(Params, places)),
        ("limbs", offset_of!(Params, limbs)),
        ("vectors", offset_of!(Params, vectors)),
    ],
};
const LEVEL_PARAMS: Layout = Layout {
    size: size_of::<LevelParams>(),
    members: &[
        ("count", offset_of!(LevelParams, count)),
        ("prefix_bytes", offset_of!(LevelParams, prefix_bytes)),
        ("prefix", offset_of!(LevelParams, prefix)),
    ],
};
const ED25519_JOB: Layout = Layout {
    size: size_of::<Ed25519Job>(),
    members: &[
        ("key", offset_of!(Ed25519Job, key)),
        ("r", offset_of!(Ed25519Job, r)),
        ("s", offset_of!(Ed25519Job, s)),
        ("k", offset_of!(Ed25519Job, k)),
    ],
};
const ECDSA_JOB: Layout = Layout {
    size: size_of::<EcdsaJob>(),
    members: &[
        ("x", offset_of!(EcdsaJob, x)),
        ("y", offset_of!(EcdsaJob, y)),
        ("r", offset_of!(EcdsaJob, r)),
        ("other_r", offset_of!(EcdsaJob, other_r)),
        ("u1", offset_of!(EcdsaJob, u1)),
        ("u2", offset_of!(EcdsaJob, u2)),
        ("padding", offset_of!(EcdsaJob, padding)),
    ],
};
const LEVEL_JOB: Layout = Layout { size: size_of::<LevelJob>(), members: &[("children", 0)] };

/// Checks a text with these capabilities and no others.
fn check(program: &Program, capabilities: Capabilities, params: &Layout, job: &Layout) {
    let module = naga::front::wgsl::parse_str(&program.text)
        .unwrap_or_else(|error| panic!("{}: {}", program.name, error.emit_to_string(&program.text)));
    let validated = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    validated.unwrap_or_else(|error| panic!("{}: {}", program.name, error.emit_to_string(&program.text)));

    for pass in program.passes.iter().map(|pass| pass.entry).chain(program.table.map(|table| table.entry)) {
        let entry = module.entry_points.iter().find(|entry| entry.name == pass);
        let entry = entry.unwrap_or_else(|| panic!("{} has no {pass}", program.name));
        assert_eq!(entry.workgroup_size, [WORKGROUP, 1, 1], "{pass}");
    }
    // Parameters, code, jobs, results, scratch, table: no binding is without a buffer.
    let buffers = 4 + program.scratch_bytes.len() + usize::from(program.table.is_some());
    for (_, variable) in module.global_variables.iter() {
        if let Some(binding) = &variable.binding {
            assert!(binding.group == 0 && (binding.binding as usize) < buffers, "{:?}", variable.name);
        }
    }
    for (name, layout) in [("Params", params), ("Job", job)] {
        let (_, found) = module.types.iter().find(|(_, of)| of.name.as_deref() == Some(name)).unwrap();
        let naga::TypeInner::Struct { members, span } = &found.inner else { panic!("{name} is no structure") };
        assert_eq!(*span as usize, layout.size, "{} {name}", program.name);
        let members: Vec<(&str, usize)> =
            members.iter().map(|member| (member.name.as_deref().unwrap(), member.offset as usize)).collect();
        assert_eq!(members, layout.members, "{} {name}", program.name);
    }
}

#[test]
fn levels_are_valid_everywhere() {
    check(&level(), Capabilities::empty(), &LEVEL_PARAMS, &LEVEL_JOB);
}

#[test]
fn signatures_need_wide_integers_only_where_they_say_so() {
    for curve in [Curve::P256, Curve::Secp256k1] {
        check(&ecdsa(curve, Width::Bits32), Capabilities::empty(), &PARAMS, &ECDSA_JOB);
        check(&ecdsa(curve, Width::Bits64), Capabilities::SHADER_INT64, &PARAMS, &ECDSA_JOB);
    }
    check(&ed25519(Width::Bits32), Capabilities::empty(), &PARAMS, &ED25519_JOB);
    check(&ed25519(Width::Bits64), Capabilities::SHADER_INT64, &PARAMS, &ED25519_JOB);
    let module = naga::front::wgsl::parse_str(&ed25519(Width::Bits64).text).unwrap();
    Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).unwrap_err();
}
