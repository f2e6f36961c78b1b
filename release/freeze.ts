import { CronExpressionParser } from "cron-parser";
import { DateTime, IANAZone } from "luxon";
import { formatProblem, type Problem } from "./problem";

/** One entry of `baton:freeze`: again and again, or once. */
export interface FreezeWindow {
  readonly name: string;
  /** When it begins, in cron's five fields. */
  readonly schedule?: string | undefined;
  /** In seconds. */
  readonly duration?: number | undefined;
  /** Local times such as 2026-12-24T00:00. */
  readonly from?: string | undefined;
  readonly until?: string | undefined;
  /** An IANA name, such as Europe/Berlin. */
  readonly timeZone: string;
}

/** A window that covers an instant. */
export interface ActiveFreeze {
  readonly window: FreezeWindow;
  /** The first instant that it does not cover any more; none when there is none within a year. */
  readonly endsAt: Date | undefined;
}

const DAY = 86_400_000;
const YEAR = 366 * DAY;
/** As often as a schedule for every minute begins in a week; a pause in each week is found. */
const MAX_STEPS = 10_080;

/**
 * The windows that cover an instant: from their beginning on, and not at their end.
 * @throws RangeError for a window with a problem; see {@link freezeProblems}.
 */
export function activeFreezes(windows: readonly FreezeWindow[], now: Date): ActiveFreeze[] {
  return windows.flatMap((window) => {
    const endsAt = freeAt([window], now);
    return endsAt?.getTime() === now.getTime() ? [] : [{ window, endsAt }];
  });
}

/**
 * The first instant, now or later, that no window covers; none when there is none within a year.
 * @throws RangeError for a window with a problem; see {@link freezeProblems}.
 */
export function freeAt(windows: readonly FreezeWindow[], now: Date): Date | undefined {
  // A window that is misread would freeze nothing.
  const [problem] = freezeProblems("freeze", windows);
  if (problem !== undefined) throw new RangeError(formatProblem(problem));
  const ends = windows.map(endOf);
  let at = now.getTime();
  for (let step = 0; step < MAX_STEPS; step += 1) {
    const end = Math.max(...ends.map((last) => last(at)));
    if (end <= at) return new Date(at);
    if (end > now.getTime() + YEAR) return undefined;
    at = end;
  }
  return undefined;
}

/**
 * The end of the last window that an instant comes after; undefined before all windows, and inside
 * one.
 * @throws RangeError for a window with a problem; see {@link freezeProblems}.
 */
export function lastFreezeEnd(windows: readonly FreezeWindow[], now: Date): Date | undefined {
  const [problem] = freezeProblems("freeze", windows);
  if (problem !== undefined) throw new RangeError(formatProblem(problem));
  const end = Math.max(...windows.map((window) => endOf(window)(now.getTime())));
  return Number.isFinite(end) && end <= now.getTime() ? new Date(end) : undefined;
}

/** What keeps a window from being understood. */
export function freezeProblems(environment: string, windows: readonly FreezeWindow[]): Problem[] {
  return windows.flatMap((window, index) => {
    const problems: Problem[] = [];
    const add = (key: keyof FreezeWindow, value: string, expected: string) =>
      problems.push({
        where: environment,
        property: `baton:freeze[${index}].${key}`,
        value,
        expected,
        fix: "Correct it",
      });
    const { schedule, from, until, timeZone } = window;
    if (schedule !== undefined && !isSchedule(schedule)) {
      add("schedule", schedule, "cron's five fields, such as 0 16 * * 5");
    }
    const localTimes = { from, until };
    for (const key of ["from", "until"] as const) {
      const text = localTimes[key];
      if (text !== undefined && wallTime(text) === undefined) {
        add(key, text, "a local time, such as 2026-12-24T00:00");
      }
    }
    if (!IANAZone.isValidZone(timeZone)) {
      add("timeZone", timeZone, "an IANA name, such as Europe/Berlin");
    } else if (problems.length === 0 && from !== undefined && until !== undefined) {
      const [begin, end] = span(from, until, IANAZone.create(timeZone));
      if (end <= begin) add("until", until, `a time after ${from}`);
    }
    return problems;
  });
}

/** When a window ends, or has ended, that last began at or before an instant; in milliseconds. */
function endOf({
  schedule,
  duration,
  from,
  until,
  timeZone,
}: FreezeWindow): (at: number) => number {
  const zone = IANAZone.create(timeZone);
  if (schedule !== undefined && duration !== undefined) {
    const beginning = lastBeginning(schedule, zone);
    return (at) => beginning(at) + duration * 1000;
  }
  const [begin, end] = span(from ?? "", until ?? "", zone);
  return (at) => (begin <= at ? end : -Infinity);
}

/** From when until when a window that comes once lasts; in milliseconds. */
function span(from: string, until: string, zone: IANAZone): [number, number] {
  const instants = (text: string) => instantsOf(wallTime(text) ?? NaN, zone);
  return [Math.min(...instants(from)), Math.max(...instants(until))];
}

/*
 * cron-parser in a zone with daylight saving skips, doubles or gives up on times near a change of
 * the clocks, and differently backwards than forwards. So it sees the clock on the wall as if it
 * were UTC, and what it finds is translated here.
 */

/** Finds the last time at or before an instant that a schedule begins; in milliseconds. */
function lastBeginning(schedule: string, zone: IANAZone): (at: number) => number {
  const walls = CronExpressionParser.parse(schedule, { tz: "UTC" });
  return (at) => {
    const offsets = [offset(zone, at), offset(zone, at - DAY)];
    // What the clock has shown until now, even if it was put back a moment ago.
    walls.reset(new Date(at + Math.max(...offsets) + 1));
    let last = -Infinity;
    for (;;) {
      const wall = walls.prev().getTime();
      last = Math.max(last, ...instantsOf(wall, zone).filter((time) => time <= at));
      // Whatever is still earlier on the clock was no later in time.
      if (wall - Math.min(...offsets) <= last) return last;
    }
  };
}

/**
 * When the clock on the wall shows a time: twice when it is put back over it. A time that it is put
 * forward over counts as the moment of the change.
 */
function instantsOf(wall: number, zone: IANAZone): number[] {
  const [before, later] = [offset(zone, wall - DAY), offset(zone, wall + DAY)];
  if (before === later) return [wall - before];
  const shown = [wall - before, wall - later].filter((time) => time + offset(zone, time) === wall);
  if (shown.length > 0) return shown;
  let [early, late] = [wall - later, wall - before];
  while (late - early > 1) {
    const middle = Math.floor((early + late) / 2);
    if (offset(zone, middle) === before) early = middle;
    else late = middle;
  }
  return [late];
}

/** Of the clock on the wall from UTC, in milliseconds. */
function offset(zone: IANAZone, at: number): number {
  return zone.offset(at) * 60_000;
}

/** A local time as if it were UTC, in milliseconds. */
function wallTime(text: string): number | undefined {
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d$/.test(text)) return undefined;
  const time = DateTime.fromISO(text, { zone: "utc" });
  return time.isValid ? time.toMillis() : undefined;
}

/** Whether cron would understand it: five fields, and none of cron-parser's random ones. */
function isSchedule(schedule: string): boolean {
  if (schedule.trim().split(/\s+/).length !== 5 || /\bH\b/i.test(schedule)) return false;
  try {
    CronExpressionParser.parse(schedule, { tz: "UTC", currentDate: new Date(0) }).next();
    return true;
  } catch {
    return false;
  }
}
