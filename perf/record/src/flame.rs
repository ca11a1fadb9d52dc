//! Flame graphs: where something went, by who called whom.
//!
//! Enters: stacks, outermost first with `;` between frames, each with a weight. Leaves: an SVG file that needs nothing else; what lies under
//! the pointer is told in full. Never here: what the weights count.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Pixels of the drawing, margins included.
const WIDTH: f64 = 1_200.0;
const MARGIN: f64 = 10.0;
const HEAD: f64 = 40.0;
const ROW: f64 = 17.0;
/// Pixels that a letter takes at most.
const LETTER: f64 = 7.0;
/// Frames narrower than this are left out: nobody could point at them.
const PIXELS_MIN: f64 = 0.2;
/// Frames of one stack that are drawn: a recursion may have more.
const DEPTH_MAX: usize = 256;

/// A frame with what it called.
#[derive(Debug, Default)]
struct Node<'a> {
    weight: u64,
    callees: BTreeMap<&'a str, Node<'a>>,
}

impl<'a> Node<'a> {
    fn add(&mut self, mut frames: impl Iterator<Item = &'a str>, weight: u64) {
        self.weight += weight;
        if let Some(frame) = frames.next() {
            self.callees.entry(frame).or_default().add(frames, weight);
        }
    }

    fn depth(&self) -> usize {
        1 + self.callees.values().map(Node::depth).max().unwrap_or(0)
    }
}

/// Draws stacks; `unit` says what the weights count. Cost: O(frames).
pub fn flame_graph(stacks: &BTreeMap<String, u64>, title: &str, unit: &str) -> String {
    let mut root = Node::default();
    for (stack, weight) in stacks {
        root.add(stack.split(';').take(DEPTH_MAX), *weight);
    }
    let height = HEAD + root.depth() as f64 * ROW + MARGIN;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">
<rect width="100%" height="100%" fill="white"/>
<text x="{MARGIN}" y="20" font-size="15">{}</text>
"#,
        escape(title)
    );
    let drawing = Drawing { total: root.weight, unit, bottom: height - MARGIN - ROW };
    drawing.frame(&mut svg, "all", &root, 0, MARGIN, WIDTH - 2.0 * MARGIN);
    svg.push_str("</svg>\n");
    svg
}

struct Drawing<'a> {
    total: u64,
    unit: &'a str,
    /// Where the outermost row begins.
    bottom: f64,
}

impl Drawing<'_> {
    fn frame(&self, svg: &mut String, name: &str, node: &Node<'_>, depth: usize, x: f64, width: f64) {
        if width < PIXELS_MIN {
            return;
        }
        let y = self.bottom - depth as f64 * ROW;
        let percent = 100.0 * node.weight as f64 / self.total.max(1) as f64;
        let shown = fit(name, width);
        let (name, shown, color) = (escape(name), escape(&shown), color(name));
        // Writing to a string does not fail.
        let _written = writeln!(
            svg,
            r#"<g><title>{name}: {} {}, {percent:.2} %</title><rect x="{x:.1}" y="{y}" width="{width:.1}" height="{}" fill="{color}" rx="1"/><text x="{:.1}" y="{}">{shown}</text></g>"#,
            node.weight,
            self.unit,
            ROW - 1.0,
            x + 3.0,
            y + 12.0,
        );
        let mut x = x;
        for (callee, below) in &node.callees {
            let width = width * below.weight as f64 / node.weight.max(1) as f64;
            self.frame(svg, callee, below, depth + 1, x, width);
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
        let stacks = stacks.iter().map(|(stack, weight)| ((*stack).to_owned(), *weight)).collect();
        flame_graph(&stacks, "a <test>", "samples")
    }

    #[test]
    fn a_frame_is_as_wide_as_its_share_and_stands_on_its_caller() {
        let svg = drawn(&[("m;a", 1), ("m;a;b", 2), ("m;c", 1)]);
        let frame =
            |name: &str| svg.lines().find(|line| line.contains(&format!("<title>{name}: "))).unwrap().to_owned();
        assert!(frame("all").contains("4 samples, 100.00 %"));
        assert!(frame("a").contains("3 samples, 75.00 %") && frame("a").contains(r#"width="885.0""#));
        assert!(frame("b").contains(r#"width="590.0""#));
        assert!(frame("c").contains(r#"x="895.0""#));
        let y = |name: &str| -> f64 {
            frame(name).split_once(r#"y=""#).unwrap().1.split_once('"').unwrap().0.parse().unwrap()
        };
        assert_eq!((y("all") - y("m"), y("a") - y("b"), y("a") - y("c")), (ROW, ROW, 0.0));
    }

    #[test]
    fn names_cannot_leave_their_place_in_the_file() {
        let svg = drawn(&[("m;</title><script>&\"", 1)]);
        assert!(!svg.contains("<script>") && svg.contains("&lt;/title&gt;&lt;script&gt;&amp;&quot;"));
        assert!(svg.contains("a &lt;test&gt;"));
    }

    #[test]
    fn a_recursion_is_drawn_to_a_depth() {
        let deep = vec!["f"; 10_000].join(";");
        assert_eq!(drawn(&[(&deep, 1)]).matches("<rect x=").count(), DEPTH_MAX + 1);
    }
}
