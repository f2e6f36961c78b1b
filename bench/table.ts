import Table from "cli-table3";
import type { Figure, Limit } from "./figure";

/** The figures for people. */
export function formatTable(figures: readonly Figure[]): string {
  const table = new Table({
    head: ["measure", "Baton", "compared with", "", "Baton : other", "limit", ""],
    style: { head: process.stdout.isTTY ? ["cyan"] : [], border: [] },
    colAligns: ["left", "right", "left", "right", "right", "left", "left"],
  });
  for (const { measure, unit, baton, comparedWith, compared, ratio, limit, verdict } of figures) {
    table.push([
      measure,
      amount(baton, unit),
      comparedWith,
      amount(compared, unit),
      formatRatio(ratio),
      limit === undefined ? "" : formatLimit(limit, unit),
      verdict ?? "",
    ]);
  }
  return table.toString();
}

/** A figure as one line of text, for people. */
export function formatFigure({
  measure,
  unit,
  baton,
  comparedWith,
  compared,
  verdict,
}: Figure): string {
  const both = `${measure}: ${amount(baton, unit)}; ${comparedWith}: ${amount(compared, unit)}`;
  return verdict === undefined ? both : `${both}; ${verdict}`;
}

function amount(value: number, unit: Figure["unit"]): string {
  if (Number.isNaN(value)) return "not measured";
  const digits = value < 100 && unit !== "requests" ? 2 : 0;
  const format = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return `${value.toLocaleString("en", format)} ${unit}`;
}

/** A small part is said as one to so many. */
function formatRatio(ratio: number): string {
  if (ratio === 0 || !Number.isFinite(ratio)) return "";
  if (ratio >= 0.1) return `${ratio.toFixed(2)} : 1`;
  return `1 : ${Math.round(1 / ratio).toLocaleString("en")}`;
}

function formatLimit({ of, aim, most }: Limit, unit: Figure["unit"]): string {
  // A limit may be another measure's value.
  const format = { maximumFractionDigits: 2 };
  const written = (value: number) =>
    of === "ratio" ? `${value} : 1` : `${value.toLocaleString("en", format)} ${unit}`;
  return aim === undefined ? `≤ ${written(most)}` : `≤ ${written(most)}, aim ${written(aim)}`;
}
