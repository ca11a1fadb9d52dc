struct Params {
    count: u32,
    places: u32,
    // LIMBS and VECTORS, which compilers cannot know.
    limbs: u32,
    vectors: u32,
}

@group(0) @binding(0) var<storage, read> params: Params;
/// Formulas, and the constants' limbs.
@group(0) @binding(1) var<storage, read> code: array<u32>;
@group(0) @binding(4) var<storage, read_write> registers: array<vec4<u32>>;

