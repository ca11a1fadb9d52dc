//! Flame graphs: where something went, by who called whom.
//!
//! Enters: stacks. Leaves: an SVG file that needs nothing else; what lies under
//! the pointer is told in full, and a click draws it as wide as there is room (a browser runs the script for that; elsewhere it is a drawing). Never here: what the weights count.

use crate::stacks::{Place, Stacks};
use std::fmt::Write as _;

/// Pixels of the drawing, margins included.
const WIDTH: f64 = 1_200.0;
const MARGIN: f64 = 10.0;
const HEAD: f64 = 40.0;
const ROW: f64 = 17.0;
/// Pixels that a letter takes at most.
const LETTER: f64 = 7.0;
/// Frames narrower than this are left out: nobody could point at them, even when what they are in is drawn larger.
const PIXELS_MIN: f64 = 0.05;
/// Frames of one stack that are drawn: a recursion may have more.
const DEPTH_MAX: usize = 256;

/// Draws the frame that was clicked, and what it called, over all of the width; its callers with it.
const ZOOM: &str = "(()=>{const s=document.currentScript.parentNode,M=10,W=1180,\
f=[...s.querySelectorAll('g.f')].map(g=>{const r=g.querySelector('rect'),t=g.querySelector('text'),n=g.querySelector('title').textContent;\
return{g,r,t,n:n.slice(0,n.lastIndexOf(': ')),x:+r.getAttribute('x'),w:+r.getAttribute('width')}});\
const zoom=z=>f.forEach(a=>{const k=W/z.w,l=Math.max(0,(a.x-z.x)*k),w=Math.min(W,(a.x+a.w-z.x)*k)-l,c=Math.floor((w-6)/7);\
a.g.style.display=w>.1?'':'none';if(w<=.1)return;a.r.setAttribute('x',M+l);a.r.setAttribute('width',w);a.t.setAttribute('x',M+l+3);\
a.t.textContent=a.n.length<=c?a.n:c<3?'':a.n.slice(0,c-2)+'..'});\
f.forEach(a=>{a.g.style.cursor='pointer';a.g.addEventListener('click',()=>zoom(a))})})()";

/// Draws stacks; `unit` says what the weights count. Cost: O(frames).
pub fn flame_graph(stacks: &Stacks, title: &str, unit: &str) -> String {
    let (weights, callees) = stacks.below();
    let mut drawing = Drawing { stacks, weights, callees, unit, boxes: String::new(), depth: 0 };
    drawing.frame(Stacks::ROOT, 0, MARGIN, WIDTH - 2.0 * MARGIN);
    let height = HEAD + (drawing.depth + 1) as f64 * ROW + MARGIN;
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">
<rect width="100%" height="100%" fill="white"/>
<text x="{MARGIN}" y="20" font-size="15">{}</text>
<g transform="translate(0 {})">
{}</g>
<script>{ZOOM}</script>
</svg>
"#,
        escape(title),
        height - MARGIN - ROW,
        drawing.boxes
    )
}

struct Drawing<'a> {
    stacks: &'a Stacks,
    weights: Vec<u64>,
    callees: Vec<Vec<Place>>,
    unit: &'a str,
    boxes: String,
    /// Of what has been drawn.
    depth: usize,
}

impl Drawing<'_> {
    /// Draws a frame and what it called, upwards.
    fn frame(&mut self, at: Place, depth: usize, x: f64, width: f64) {
        if width < PIXELS_MIN || depth > DEPTH_MAX {
            return;
        }
        self.depth = self.depth.max(depth);
        let weight = self.weights[at.index()];
        let percent = 100.0 * weight as f64 / self.weights[0].max(1) as f64;
        let name = if at == Stacks::ROOT { "all" } else { self.stacks.name(at) };
        let shown = fit(name, width);
        let (name, shown, color) = (escape(name), escape(&shown), color(name));
        let y = -(depth as f64 * ROW);
        // Writing to a string does not fail.
        let _written = writeln!(
            self.boxes,
            r#"<g class="f"><title>{name}: {weight} {}, {percent:.2} %</title><rect x="{x:.3}" y="{y}" width="{width:.3}" height="{}" fill="{color}" rx="1"/><text x="{:.1}" y="{}">{shown}</text></g>"#,
            self.unit,
            ROW - 1.0,
            x + 3.0,
            y + 12.0,
        );
        let mut x = x;
        for callee in std::mem::take(&mut self.callees[at.index()]) {
            let width = width * self.weights[callee.index()] as f64 / weight.max(1) as f64;
            self.frame(callee, depth + 1, x, width);
            x += width;
        }
    }
}

/// As much of a name as fits.
fn fit(name: &str, width: f64) -> String {
    let letters = ((width - 6.0) / LETTER).max(0.0) as usize;
    match name.char_indices().nth(letters) {
        None => name.to_owned(),
        Some(_) if letters < 3 => String::new(),
        Some(_) => name.chars().take(letters - 2).chain("..".chars()).collect(),
    }
}

/// The same name has the same color in every drawing.
fn color(name: &str) -> String {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let part = |shift: u32, from: u64, range: u64| from + (hash >> shift) % range;
    format!("rgb({},{},{})", part(8, 205, 50), part(24, 90, 130), part(40, 20, 60))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(stacks: &[(&str, u64)]) -> String {
        flame_graph(&stacks.iter().copied().collect(), "a <test>", "samples")
    }

    #[test]
    fn a_frame_is_as_wide_as_its_share_and_stands_on_its_caller() {
        let svg = drawn(&[("m;a", 1), ("m;a;b", 2), ("m;c", 1)]);
        let frame =
            |name: &str| svg.lines().find(|line| line.contains(&format!("<title>{name}: "))).unwrap().to_owned();
        assert!(frame("all").contains("4 samples, 100.00 %"));
        assert!(frame("a").contains("3 samples, 75.00 %") && frame("a").contains(r#"width="885.000""#));
        assert!(frame("b").contains(r#"width="590.000""#));
        assert!(frame("c").contains(r#"x="895.000""#));
        let y = |name: &str| -> f64 {
            frame(name).split_once(r#"y=""#).unwrap().1.split_once('"').unwrap().0.parse().unwrap()
        };
        assert_eq!((y("all") - y("m"), y("a") - y("b"), y("a") - y("c")), (ROW, ROW, 0.0));
    }

    #[test]
    fn names_cannot_leave_their_place_in_the_file() {
        let svg = drawn(&[("m;</title><script>&\"", 1)]);
        assert!(svg.matches("<script").count() == 1 && svg.contains("&lt;/title&gt;&lt;script&gt;&amp;&quot;"));
        assert!(svg.contains("a &lt;test&gt;"));
    }

    #[test]
    fn a_recursion_is_drawn_to_a_depth() {
        let deep = vec!["f"; 10_000].join(";");
        assert_eq!(drawn(&[(&deep, 1)]).matches("<rect x=").count(), DEPTH_MAX + 1);
    }
}
