//go:build bench

package bench_test

import (
	"fmt"
	"slices"
	"strings"
)

// table prints the head of a table as docs/performance.md has it.
func table(title string, columns ...string) {
	fmt.Printf("\n### %s\n\n", title)
	row(columns...)
	row(slices.Repeat([]string{"---"}, len(columns))...)
}

func row(cells ...string) { fmt.Println("| " + strings.Join(cells, " | ") + " |") }

// number formats a figure with so many decimals.
func number(v float64, decimals int) string { return fmt.Sprintf("%.*f", decimals, v) }

// against formats a ratio to the peer; it is no ratio without one.
func against(ours, peers float64) string {
	if peers == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f×", ours/peers)
}

// verdict compares with a bar that is not to be exceeded.
func verdict(value, bar float64) string {
	if value <= bar {
		return "met"
	}
	return "**not met**"
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}
