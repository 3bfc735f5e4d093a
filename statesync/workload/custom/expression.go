package custom

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/ext"
)

// Limits of an expression. The cost is counted in CEL's own units, a hundred
// nanoseconds each or so: BenchmarkCost has the numbers.
const (
	maxDepth = 64      // of nested calls, in the parser
	maxNodes = 4_000   // of the syntax tree, macros expanded
	maxCost  = 250_000 // of one evaluation
	maxRange = 1_000   // items that lists.range may make: it makes them before they are counted
	maxRegex = 250     // instructions of a regular expression
	maxTold  = 3       // mistakes told of one expression
)

// newEnv returns the language: CEL, optional fields, and functions on strings,
// lists and numbers. Their versions are fixed: an expression must not
// come to mean something else with a newer library.
func newEnv() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("object", cel.DynType),
		cel.OptionalTypes(cel.OptionalTypesVersion(4)),
		ext.Strings(ext.StringsVersion(5)),
		ext.Lists(ext.ListsVersion(5), ext.ListsMaxRangeSize(maxRange)),
		ext.Math(ext.MathVersion(3)),
		weighFunction(),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals()),
		cel.ParserRecursionLimit(maxDepth),
		cel.ParserErrorRecoveryLimit(maxTold),
		cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxRegex),
	)
}

// An expression is one that compiled; with none, it is nil.
type expression struct {
	name    string
	program cel.Program
	source  *ast.SourceInfo
}

// A compiler compiles the expressions of one kind, and gathers what they read.
type compiler struct {
	env  *cel.Env
	read *path
	errs []error
}

// compile returns the expression, nil when there is none or it has mistakes.
// Its result is of one of the types, or is known only when it is evaluated.
func (c *compiler) compile(name, text, want string, may ...*cel.Type) *expression {
	if text == "" {
		return nil
	}
	bad := func(line, column int, got, want string) {
		c.errs = append(c.errs, &Error{Rule: name, Line: line, Column: column, Got: got, Want: want})
	}
	if len(text) > maxExpression {
		bad(1, 1, fmt.Sprintf("%d bytes", len(text)), fmt.Sprintf("%d at most", maxExpression))
		return nil
	}
	if !utf8.ValidString(text) {
		bad(1, 1, "bytes that are not UTF-8", "text")
		return nil
	}
	checked, issues := c.env.Compile(text)
	if issues.Err() != nil {
		for i, e := range issues.Errors() {
			if i < maxTold {
				bad(max(e.Location.Line(), 1), max(e.Location.Column()+1, 1), plain(e.Message), "an expression of "+want)
			}
		}
		return nil
	}
	if !oneOf(checked.OutputType(), may) {
		line, column := begin(text)
		bad(line, column, cel.FormatCELType(checked.OutputType()), want)
		return nil
	}
	source, mistakes := checked.NativeRep().SourceInfo(), len(c.errs)
	dear(checked.NativeRep(), func(id int64, got, want string) {
		place := source.GetStartLocation(id)
		bad(max(place.Line(), 1), max(place.Column()+1, 1), got, want)
	})
	if len(c.errs) > mistakes {
		return nil
	}
	c.read.addAll(checked.NativeRep().Expr()) // before it is changed
	weighArguments(checked.NativeRep())
	program, err := c.env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostTracking(sizes{}), cel.CostLimit(maxCost))
	if err != nil {
		line, column := begin(text)
		bad(line, column, oneLine(err.Error()), "an expression of "+want)
		return nil
	}
	return &expression{name, program, source}
}

// oneOf reports whether a type is one of those, or is known at run time alone.
func oneOf(t *cel.Type, may []*cel.Type) bool {
	switch t.Kind() {
	case cel.DynKind, cel.AnyKind, cel.TypeParamKind:
		return true
	}
	return slices.ContainsFunc(may, t.IsExactType)
}

// begin is where the first word of an expression stands.
func begin(text string) (line, column int) {
	rest := strings.TrimLeft(text, " \t\r\n")
	before := text[:len(text)-len(rest)]
	return 1 + strings.Count(before, "\n"), 1 + len(before) - (strings.LastIndexByte(before, '\n') + 1)
}

// plain leaves out of a compiler's message what helps nobody: the tokens that
// may begin an expression, and the container, which is none.
func plain(message string) string {
	message, _, _ = strings.Cut(strings.TrimPrefix(message, "Syntax error: "), " expecting ")
	message = strings.ReplaceAll(message, "mismatched input '<EOF>'", "the end of the text")
	return oneLine(strings.ReplaceAll(message, " (in container '')", ""))
}

// oneLine makes a library's message fit in an error's one line.
func oneLine(s string) string {
	const limit = 300
	return cut(strings.Join(strings.Fields(s), " "), limit)
}
