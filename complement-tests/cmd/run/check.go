package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"complement-tests/internal/suite"
)

// checkExpected runs everything, and once more the tests of expected.txt that failed. The code is 0 if each of the list
// passed in one of the two; what passed beside is named, so that it gets into the list.
func (r *runner) checkExpected(ctx context.Context, expected *suite.Expected) (int, error) {
	if len(expected.Tests) == 0 {
		return 2, fmt.Errorf("expected.txt names no test")
	}
	began := time.Now()
	results, _, faults := r.everything(ctx)
	failing := expected.Failing(results, r.names())
	if len(failing) > 0 && ctx.Err() == nil {
		r.list("\nFailed; they are tried once more:", failing)
		again, err := r.these(ctx, failing)
		faults = append(faults, err)
		for _, test := range failing {
			if again[test] == suite.Pass {
				fmt.Fprintf(r.out, "Passed at the second try: %s\n", test)
				results[test] = suite.Pass
			}
		}
	}
	if ctx.Err() != nil {
		return 2, ctx.Err()
	}
	failing = expected.Failing(results, r.names())
	fmt.Fprintf(r.out, "\n%s\n%v on %d cores. What the tests printed: %s\n",
		suite.Table(results), time.Since(began).Round(time.Second), runtime.NumCPU(), r.logs)
	r.list("Failed twice:", failing)
	r.list("Passed and not in expected.txt (add them):", expected.News(results))
	total := 0
	for _, test := range expected.Tests {
		if r.has(test.Package) {
			total++
		}
	}
	fmt.Fprintf(r.out, "%d passed, %d failed\n", total-len(failing), len(failing))
	if err := errors.Join(faults...); err != nil {
		return 2, err
	}
	if len(failing) > 0 {
		return 1, nil
	}
	return 0, nil
}

// these runs the tests to which the given ones belong, package by package.
func (r *runner) these(ctx context.Context, tests []suite.Test) (suite.Results, error) {
	results := suite.Results{}
	var faults []error
	for _, pkg := range r.packages {
		var own []suite.Test
		for _, test := range tests {
			if test.Package == pkg.Name {
				own = append(own, test)
			}
		}
		if len(own) == 0 {
			continue
		}
		asked, err := suite.ParseSelection(suite.Pattern(own))
		if err != nil {
			return results, err
		}
		these, err := r.one(ctx, pkg, asked)
		results.Replace(nil, these)
		faults = append(faults, err)
	}
	return results, errors.Join(faults...)
}

// names are the packages that were asked for; nil is all of them, also such as are in the list and do not exist.
func (r *runner) names() []string {
	if len(r.options.packages) == 0 {
		return nil
	}
	var names []string
	for _, pkg := range r.packages {
		names = append(names, pkg.Name)
	}
	return names
}

func (r *runner) has(name string) bool {
	names := r.names()
	return names == nil || slices.Contains(names, name)
}
