package custom

import (
	"fmt"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// Rules of what an expression may cost:
//   - The library counts as it goes, and stops above maxCost. It counts a
//     function after it ran, so that one call must not take long by itself,
//     whatever the object holds: objects are their users', up to 1.5 MB each.
//   - Functions whose time grows with the square of a list, or that make texts
//     of any length of a short one, are refused.
//   - Functions that search a text take literals alone to look for, and short
//     ones.
//   - The library takes a call on a value whose type it learns only from the
//     object as 1. Here such calls cost what their values weigh.

// refused are functions that one call of can take minutes. Read-only.
var refused = map[string]string{
	"distinct": "no distinct()", "hasAny": "exists()", "hasAll": "all()", "hasExactly": "all()", "format": "+ and string()",
}

// literals are functions whose arguments must be literals, and how long in
// bytes. Read-only.
var literals = map[string]int{"replace": 64, "indexOf": 64, "lastIndexOf": 64, "matches": 256}

// dear returns what is refused in an expression for the time that it might
// take.
func dear(tree *ast.AST, bad func(id int64, got, want string)) {
	ast.PostOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		call := e.AsCall()
		name := call.FunctionName()
		if instead, ok := refused[name]; ok {
			bad(e.ID(), name+"(), which may take minutes", instead)
			return
		}
		limit, ok := literals[name]
		args := call.Args()
		if !ok || len(args) == 0 {
			return
		}
		if !call.IsMemberFunction() {
			args = args[1:]
		}
		for _, arg := range args {
			want := fmt.Sprintf("literals of %d bytes at most as arguments of %s", limit, name)
			if arg.Kind() != ast.LiteralKind {
				bad(arg.ID(), "a value of the object", want)
			} else if s, isText := arg.AsLiteral().(types.String); isText && len(s) > limit {
				bad(arg.ID(), fmt.Sprintf("%d bytes", len(s)), want)
			}
		}
	}))
}

// sizes says what calls cost that the library takes as 1.
type sizes struct{}

// CallCost implements the library's interface; nil: the library knows better.
func (sizes) CallCost(function, overload string, args []ref.Val, result ref.Val) *uint64 {
	cost := uint64(1)
	switch function {
	case operators.Equals, operators.NotEquals:
		cost += min(weight(args[0]), weight(args[1]))
	case operators.In:
		cost += weight(args[1])
	case operators.Add:
		if _, ok := result.(traits.Lister); !ok { // lists are put together without a copy
			cost += weight(result)
		}
	case operators.Index, operators.OptIndex, operators.OptSelect, operators.Conditional, operators.LogicalAnd, operators.LogicalOr:
		return nil
	case "size": // of a text it is counted, character by character
		if _, ok := args[0].(types.String); ok {
			cost += weight(args[0])
		}
	default:
		if overload != "" && !strings.Contains(function, ".") { // the standard's, by the type of its arguments
			return nil
		}
		for _, v := range append(args[:len(args):len(args)], result) {
			cost += weight(v)
		}
	}
	return &cost
}

// weight is how much there is of a value, in units of cost.
func weight(v ref.Val) uint64 {
	switch v := v.(type) {
	case types.String:
		return uint64(len(v)) / 10
	case types.Bytes:
		return uint64(len(v)) / 10
	case traits.Mapper:
		var n uint64
		for it := v.Iterator(); it.HasNext() == types.True; {
			n += 1 + weight(v.Get(it.Next()))
		}
		return n
	case traits.Lister:
		var n uint64
		for it := v.Iterator(); it.HasNext() == types.True; {
			n += 1 + weight(it.Next())
		}
		return n
	}
	return 0
}
