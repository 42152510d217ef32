//! Aligned columns for people.

/// Rows under a heading. The last column is not padded, so that long texts wrap as the terminal does.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned).to_vec()] }
    }

    /// Adds a row; an empty cell shows as `-`.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let show = |cell: String| if cell.is_empty() { "-".to_owned() } else { cell };
        self.rows.push(cells.map(show).to_vec());
    }

    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let cells: Vec<String> = cells.collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let mut table = Table::new(["ID", "PHASE", "LANE"]);
        table.row(["a".to_owned(), "succeeded".to_owned(), "default".to_owned()]);
        table.row(["ünï-42".to_owned(), "lost".to_owned(), String::new()]);
        assert_eq!(
            table.render(),
            "ID      PHASE      LANE\na       succeeded  default\nünï-42  lost       -\n"
        );
    }
}
