/**
 * One thing that is wrong with what a person asked for, in the words they used.
 * Rendered as `where: property is value; expected …. What to do.`
 */
export interface Problem {
  /** Whose configuration it is: the environment's name, e.g. `prod`. */
  readonly where: string;
  /** The configuration key, as it is written in the stack file, e.g. `baton:imageTag`. */
  readonly property: string;
  /** What it is now, for display; never a secret. */
  readonly value: string;
  /** What would be accepted. */
  readonly expected: string;
  /** What to do about it, one sentence without its full stop. */
  readonly fix: string;
}

export function formatProblem(problem: Problem): string {
  const { where, property, value, expected, fix } = problem;
  return `${where}: ${property} is ${value}; expected ${expected}. ${fix}.`;
}

/** All problems in one text, one a line, each once. */
export function formatProblems(problems: readonly Problem[]): string {
  return [...new Set(problems.map(formatProblem))].join("\n");
}
