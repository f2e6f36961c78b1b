import { formatProblems, type Problem } from "../release/problem";

/** Stops a command with words for people; whatever else is thrown is shown as it is. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  constructor(problems: Problem | readonly Problem[]) {
    super(formatProblems("where" in problems ? [problems] : problems));
  }
}
