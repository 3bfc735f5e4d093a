package custom

import (
	"fmt"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

// Rules of what an expression may cost:
//   - The library counts as it goes, and stops above maxCost. It counts a
//     function after it ran, and most of them as 1. So each argument is weighed
//     before its function is called, in a call of its own: one that is too
//     heavy stops there, whatever the object holds. Objects are their users',
//     up to 1.5 MB each.
//   - A list that holds another many times weighs as much as if it had copies.
//   - Functions whose time grows with the square of a list, or that make texts
//     of any length of a short one, are refused.
//   - Functions that search a text take literals alone to look for, and short
//     ones: they say how dear a byte of the text is.

// refused are functions that one call of can take minutes. Read-only.
var refused = map[string]string{
	"distinct": "no distinct()", "hasAny": "exists()", "hasAll": "all()", "hasExactly": "all()", "format": "+ and string()",
}

// literals are functions whose arguments must be literals, and how long in
// bytes. Read-only.
var literals = map[string]int{"replace": 64, "indexOf": 64, "lastIndexOf": 64, "join": 64, "matches": 256}

// dear returns what is refused in an expression for the time that it might
// take.
func dear(tree *ast.AST, bad func(id int64, got, want string)) {
	ast.PostOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.StructKind {
			bad(e.ID(), "a message "+e.AsStruct().TypeName(), "a map: {...}")
		}
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
