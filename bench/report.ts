import { formatFigure } from "./table";
import type { Figure } from "./figure";
import type { Show } from "./progress";

/** A step that could not be measured, and why. */
export interface Failure {
  readonly step: string;
  readonly reason: string;
}

/** The figures of a run: each is printed when it is there, and no step that fails costs another's. */
export class Report {
  readonly figures: Figure[] = [];
  readonly failures: Failure[] = [];

  constructor(
    readonly show: Show,
    private readonly print: (line: string) => void,
  ) {}

  /** Keeps and prints figures; not while tasks are shown, which may draw over what is printed. */
  add(...figures: readonly Figure[]): void {
    for (const figure of figures) this.print(formatFigure(figure));
    this.figures.push(...figures);
  }

  /** @returns whether the step went through; its failure is kept and printed. */
  async attempt(step: string, work: () => Promise<unknown>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.failures.push({ step, reason });
      this.print(`${step} failed: ${reason}`);
      return false;
    }
  }
}
