import type { z } from '@hono/zod-openapi';
import { ApiError, type FieldProblem } from './api-error.ts';

type Issue = z.core.$ZodIssue;

/** The `defaultHook` of every route: what a schema refuses is one 422 that names each field. */
export function refuseInvalid(result: { success: boolean; error?: { issues: unknown } }): void {
  if (!result.success) throw validationError(result.error?.issues as Issue[]);
}

const maxErrors = 20;

/** 422 with each field that a schema complains of, the first twenty. */
export function validationError(issues: Issue[]): ApiError {
  const all = issues.flatMap((issue) => fieldProblems(issue));
  const errors = all.slice(0, maxErrors);
  const first = errors[0] ?? { field: '', message: 'Not valid.' };
  const message = first.field === '' ? first.message : `${first.field}: ${first.message}`;
  const leftOut = all.length - errors.length;
  return new ApiError(422, 'invalid_input', message, {
    errors,
    ...(leftOut > 0 && { extra: { errors_left_out: leftOut } }),
  });
}

/** `['audience', 'condition', 'and', 1]` as people write it: `audience.condition.and[1]`. */
function fieldPath(path: readonly PropertyKey[]): string {
  let text = '';
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`;
    else text += text === '' ? String(part) : `.${String(part)}`;
  }
  return text;
}

function fieldProblems(issue: Issue, base: readonly PropertyKey[] = []): FieldProblem[] {
  const path = [...base, ...issue.path];
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({ field: fieldPath([...path, key]), message: 'There is no such field.' }));
  }
  if (issue.code === 'invalid_union' && issue.errors.length > 0) {
    return closest(issue.errors).flatMap((nested) => fieldProblems(nested, path));
  }
  return [{ field: fieldPath(path), message: issue.message }];
}

/**
 * Of a union that took none of its branches, the branch that was meant: the one that agrees on the names of the fields, which
 * is the one with the fewest complaints about the object itself.
 */
function closest(branches: Issue[][]): Issue[] {
  const complaints = (branch: Issue[]) =>
    branch.reduce((sum, issue) => {
      if (issue.code === 'unrecognized_keys') return sum + 10 * issue.keys.length;
      if (issue.path.length === 0) return sum + 100;
      return sum + (issue.code === 'invalid_type' && issue.path.length === 1 && isMissing(issue) ? 10 : 1);
    }, 0);
  return branches.reduce((best, branch) => (complaints(branch) < complaints(best) ? branch : best));
}

function isMissing(issue: Issue): boolean {
  return issue.code === 'invalid_type' && (issue as { input?: unknown }).input === undefined;
}
