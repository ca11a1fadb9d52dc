//! Templates: a line with one of these names is repeated, with numbers in their place.
//!
//! - `{j}` for each limb; also `{j/4}` and `{j%4}`, and, where the limb's bits are in words of 32, `{at}`, `{at+1}` and `{shift}`;
//! - `{i}` for each limb but the highest; also `{i+1}`;
//! - `{h}` for each limb but the lowest, the highest first; also `{h-1}`;
//! - `{v}` for each four limbs; also `{4v}` to `{4v+3}`.

use crate::field::Width;

/// The text of a template.
pub(crate) fn expand(template: &str, width: Width) -> String {
    let limbs = width.limbs();
    let mut text = String::with_capacity(4 * template.len());
    for line in template.lines() {
        let code = line.split("//").next().unwrap_or(line);
        let mut repeat = |numbers: &mut dyn Iterator<Item = u32>, names: &dyn Fn(u32) -> Vec<(&'static str, u32)>| {
            for number in numbers {
                let line = names(number).into_iter().fold(code.to_owned(), |line, (name, value)| {
                    line.replace(&format!("{{{name}}}"), &value.to_string())
                });
                text.push_str(&line);
                text.push('\n');
            }
        };
        if ["{j}", "{at}"].iter().any(|name| code.contains(name)) {
            repeat(&mut (0..limbs), &|j| {
                let bit = j * width.bits();
                vec![
                    ("j", j),
                    ("j/4", j / 4),
                    ("j%4", j % 4),
                    ("at", bit / 32),
                    ("at+1", bit / 32 + 1),
                    ("shift", bit % 32),
                ]
            });
        } else if code.contains("{i}") {
            repeat(&mut (0..limbs - 1), &|i| vec![("i", i), ("i+1", i + 1)]);
        } else if code.contains("{h}") {
            repeat(&mut (1..limbs).rev(), &|h| vec![("h", h), ("h-1", h - 1)]);
        } else if code.contains("{v}") {
            repeat(&mut (0..width.vectors()), &|v| {
                vec![("v", v), ("4v", 4 * v), ("4v+1", 4 * v + 1), ("4v+2", 4 * v + 2), ("4v+3", 4 * v + 3)]
            });
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_repeated_for_each_limb() {
        let template = "a[{i+1}] += a[{i}];\nkeep {\n b{v}[{4v+3}]\n}\n";
        let lines: Vec<String> = expand(template, Width::Bits64).lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 9 + 1 + 3 + 1);
        assert_eq!((lines[0].as_str(), lines[8].as_str()), ("a[1] += a[0];", "a[9] += a[8];"));
        assert_eq!((lines[9].as_str(), lines[12].as_str(), lines[13].as_str()), ("keep {", " b2[11]", "}"));
    }
}
