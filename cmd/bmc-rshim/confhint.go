// SPDX-License-Identifier: Apache-2.0

package main

import "strings"

// didYouMean is a hint at the known key that an unknown one is nearest to.
func (c *confReader) didYouMean(key string) string {
	if len(c.remarks) >= maxRemarks {
		return "" // nobody sees it
	}
	word, _, _ := strings.Cut(strings.ToUpper(key), "=") // KEY=VALUE is common elsewhere
	names := []string{"none", keyNCSI, keyMetrics}
	if n := strings.TrimRight(word, "0123456789"); n != word {
		names = append(names, "rshim"+word[len(n):])
	}
	for _, k := range confKeys {
		names = append(names, k.name)
	}
	best, least := "", 1+max(1, len(word)/4)
	for _, name := range names {
		if d := distance(word, strings.ToUpper(name)); d < least {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return ": did you mean " + best + "?"
}

// distance is how many bytes have to be inserted, deleted or replaced to make b
// of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
