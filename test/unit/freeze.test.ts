import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import { activeFreezes, freeAt, freezeProblems, type FreezeWindow } from "../../release/freeze";
import { formatProblems } from "../../release/problem";
import { weekend } from "../support/freezes";

const MINUTE = 60_000;
const HOUR = 3600;
const DAY = 24 * HOUR;
const at = (time: string) => new Date(`${time}Z`);

const turn: FreezeWindow = {
  name: "turn of the year",
  from: "2026-12-21T00:00",
  until: "2027-01-04T00:00",
  timeZone: "America/New_York",
};
const again = (schedule: string, duration: number, timeZone = "UTC"): FreezeWindow => ({
  name: schedule,
  schedule,
  duration,
  timeZone,
});

/** The names of the windows that cover an instant, and when each ends; `never` within a year. */
function active(windows: readonly FreezeWindow[], time: string): [string, string][] {
  return activeFreezes(windows, at(time)).map(({ window, endsAt }) => [
    window.name,
    endsAt?.toISOString().slice(0, 16) ?? "never",
  ]);
}

describe("a freeze", () => {
  it("is on from its beginning, and not at its end", () => {
    const on = [["weekend", "2026-11-09T07:00"]];
    assert.deepEqual(active([weekend], "2026-11-06T14:59:59.999"), []);
    assert.deepEqual(active([weekend], "2026-11-06T15:00"), on);
    assert.deepEqual(active([weekend], "2026-11-09T06:59:59.999"), on);
    assert.deepEqual(active([weekend], "2026-11-09T07:00"), []);
  });

  it("that comes once is on from and until its local times, over the year's end", () => {
    const on = [["turn of the year", "2027-01-04T05:00"]];
    assert.deepEqual(active([turn], "2026-12-21T04:59"), []);
    assert.deepEqual(active([turn], "2026-12-21T05:00"), on);
    assert.deepEqual(active([turn], "2027-01-01T00:00"), on);
    assert.deepEqual(active([turn], "2027-01-04T05:00"), []);
  });

  it("crosses midnight and the year's end", () => {
    assert.deepEqual(active([again("0 22 * * *", 4 * HOUR)], "2027-01-01T01:59"), [
      ["0 22 * * *", "2027-01-01T02:00"],
    ]);
  });

  it("lasts as long over a change of the clocks, which its end shows", () => {
    // Into winter, the 64 hours end at 7 o'clock; into summer, at 9.
    assert.deepEqual(active([weekend], "2026-10-25T12:00"), [["weekend", "2026-10-26T06:00"]]);
    assert.deepEqual(active([weekend], "2026-03-29T12:00"), [["weekend", "2026-03-30T07:00"]]);
  });

  it("begins at the change of the clocks when its time is skipped", () => {
    const night = [again("30 2 * * *", HOUR / 2, "Europe/Berlin")];
    assert.deepEqual(active(night, "2026-03-29T00:59"), []);
    assert.deepEqual(active(night, "2026-03-29T01:00"), [["30 2 * * *", "2026-03-29T01:30"]]);
    assert.deepEqual(active(night, "2026-03-29T01:30"), []);
  });

  it("begins twice when the clocks show its time twice", () => {
    const night = [again("30 2 * * *", HOUR / 2, "Europe/Berlin")];
    assert.deepEqual(active(night, "2026-10-25T00:30"), [["30 2 * * *", "2026-10-25T01:00"]]);
    assert.deepEqual(active(night, "2026-10-25T01:00"), []);
    assert.deepEqual(active(night, "2026-10-25T01:30"), [["30 2 * * *", "2026-10-25T02:00"]]);
    const once = { from: "2026-10-25T02:15", until: "2026-10-25T02:45" };
    const both = [{ name: "once", timeZone: "Europe/Berlin", ...once }];
    assert.deepEqual(active(both, "2026-10-25T00:15"), [["once", "2026-10-25T01:45"]]);
  });

  it("goes on when the clocks are put back to before its beginning", () => {
    const night = [again("50 2 * * *", HOUR / 2, "Europe/Berlin")];
    assert.deepEqual(active(night, "2026-10-25T01:10"), [["50 2 * * *", "2026-10-25T01:20"]]);
    const often = [again("20,50 2 * * *", HOUR / 4, "Europe/Berlin")];
    assert.deepEqual(active(often, "2026-10-25T01:30"), [["20,50 2 * * *", "2026-10-25T01:35"]]);
  });

  it("that begins again before it has ended goes on", () => {
    const long = again("0 0 1,2 * *", 36 * HOUR);
    assert.deepEqual(active([long], "2026-11-01T00:00"), [[long.name, "2026-11-03T12:00"]]);
    const seamless = again("0 0 1,2 * *", DAY);
    assert.deepEqual(active([seamless], "2026-11-01T00:00"), [[seamless.name, "2026-11-03T00:00"]]);
  });

  it("that never pauses has no end", () => {
    for (const always of [
      again("* * * * *", 60),
      again("0 0 * * *", DAY),
      again("0 0 29 2 *", 1e12),
    ]) {
      assert.deepEqual(active([always], "2026-11-01T00:00"), [[always.name, "never"]]);
      assert.equal(freeAt([always], at("2026-11-01T00:00")), undefined);
    }
  });

  it("that comes once in four years is found", () => {
    const leap = again("0 12 29 2 *", HOUR);
    assert.deepEqual(active([leap], "2028-02-29T12:30"), [[leap.name, "2028-02-29T13:00"]]);
    assert.deepEqual(active([leap], "2027-02-28T12:30"), []);
  });

  it("as a whole ends when no window is on any more", () => {
    const time = at("2026-12-18T20:00");
    const windows = [weekend, { ...turn, until: "2027-01-02T00:00" }];
    assert.deepEqual(freeAt(windows, time), at("2027-01-04T07:00"), "the weekend, twice");
    assert.deepEqual(freeAt([weekend], time), at("2026-12-21T07:00"));
    assert.deepEqual(freeAt([turn], time), time, "none is on");
    assert.deepEqual(freeAt([], time), time);
  });

  it("that is misread is not taken for none", () => {
    assert.throws(() => activeFreezes([{ ...turn, from: "soon" }], at("2026-11-01T00:00")), {
      name: "RangeError",
      message: /freeze\[0\]\.from is soon; expected a local time/,
    });
    assert.throws(() => freeAt([{ ...weekend, timeZone: "X" }], at("2026-11-01T00:00")));
  });
});

describe("the windows of a freeze", () => {
  const problems = (...windows: FreezeWindow[]) => formatProblems(freezeProblems("qa", windows));

  it("are fine as the examples have them", () => {
    assert.equal(problems(weekend, turn, again("*/5 9-17 ? * MON-FRI", 60)), "");
  });

  it("have a schedule of five fields that comes at all", () => {
    for (const schedule of [
      "x",
      "@daily",
      "0 0 16 * * 5",
      "60 * * * *",
      "0 0 30 2 *",
      "H H * * *",
    ]) {
      assert.equal(
        problems(weekend, again(schedule, HOUR)),
        `qa: baton:freeze[1].schedule is ${schedule}; expected cron's five fields, such as ` +
          "0 16 * * 5. Correct it.",
      );
    }
  });

  it("have a zone that is known", () => {
    assert.equal(
      problems({ ...weekend, timeZone: "Europe/Bonn" }),
      "qa: baton:freeze[0].timeZone is Europe/Bonn; expected an IANA name, such as " +
        "Europe/Berlin. Correct it.",
    );
  });

  it("have local times, the later one last", () => {
    for (const from of [
      "Christmas",
      "2026-12-21",
      "10:00",
      "2026-02-30T00:00",
      "2026-12-21T00:00Z",
    ]) {
      assert.equal(
        problems({ ...turn, from }),
        `qa: baton:freeze[0].from is ${from}; expected a local time, such as 2026-12-24T00:00. ` +
          "Correct it.",
      );
    }
    assert.match(problems({ ...turn, until: "2026-13-01T00:00" }), /freeze\[0\]\.until is 2026-13/);
    for (const until of ["2026-12-20T00:00", turn.from]) {
      assert.equal(
        problems({ ...turn, until }),
        `qa: baton:freeze[0].until is ${until}; expected a time after 2026-12-21T00:00. Correct it.`,
      );
    }
  });

  it("have all their problems listed at once", () => {
    const text = problems({ ...turn, from: "x", until: "y", timeZone: "z" }, again("x", 1, "z"));
    assert.equal(text.split("\n").length, 5, text);
  });
});

/** What the clock on the wall shows, as if it were UTC: by Intl, minute by minute. */
function wallClock(timeZone: string, from: number, minutes: number): number[] {
  const format = new Intl.DateTimeFormat("sv-SE", {
    timeZone,
    dateStyle: "short",
    timeStyle: "short",
  });
  return Array.from({ length: minutes }, (_, index) =>
    Date.parse(`${format.format(from + index * MINUTE).replace(" ", "T")}Z`),
  );
}

describe("a freeze, minute by minute,", () => {
  const DAYS = 9;
  const MINUTES = DAYS * 24 * 60;
  /** Nine days around a change of the clocks; the last has none. */
  const scenes = [
    ["Europe/Berlin", "2026-03-25T00:00"],
    ["Europe/Berlin", "2026-10-21T00:00"],
    ["Australia/Lord_Howe", "2026-09-30T00:00"],
    ["Australia/Lord_Howe", "2026-04-01T00:00"],
    ["America/Santiago", "2026-09-02T00:00"],
    ["America/Havana", "2026-10-28T00:00"],
    ["Asia/Kolkata", "2026-12-28T00:00"],
  ].map(([timeZone = "", start = ""]) => {
    const begin = at(start).getTime();
    return { timeZone, begin, clock: wallClock(timeZone, begin, MINUTES) };
  });

  interface Schedule {
    readonly minute: number;
    readonly hours: readonly number[] | undefined;
    readonly weekday: number | undefined;
    readonly length: number;
  }
  const anySchedule: fc.Arbitrary<Schedule> = fc.record({
    minute: fc.constantFrom(0, 10, 30, 59),
    hours: fc.option(fc.uniqueArray(fc.constantFrom(0, 1, 2, 3, 16, 23), { minLength: 1 }), {
      nil: undefined,
    }),
    weekday: fc.option(fc.nat(6), { nil: undefined }),
    // In minutes.
    length: fc.oneof(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 2 * 24 * 60 })),
  });
  // One that never pauses takes long to give up on.
  const schedule = anySchedule.filter(
    ({ hours, weekday, length }) => hours !== undefined || weekday !== undefined || length < 60,
  );
  const window = ({ minute, hours, weekday, length }: Schedule, timeZone: string) =>
    again(`${minute} ${hours?.join(",") ?? "*"} * * ${weekday ?? "*"}`, length * 60, timeZone);

  /** Of each minute, whether a schedule covers it. */
  function covered({ minute, hours, weekday, length }: Schedule, clock: readonly number[]) {
    const matches = (wall: number) => {
      const time = new Date(wall);
      return (
        time.getUTCMinutes() === minute &&
        (hours?.includes(time.getUTCHours()) ?? true) &&
        (weekday ?? time.getUTCDay()) === time.getUTCDay()
      );
    };
    let left = 0;
    return clock.map((wall, index) => {
      const former = clock[index - 1] ?? wall - MINUTE;
      // What the clock shows now, and whatever it was put forward over.
      for (let shown = Math.min(former + MINUTE, wall); shown <= wall; shown += MINUTE) {
        if (matches(shown)) left = length;
      }
      left -= 1;
      return left >= 0;
    });
  }

  // What began before the nine days is unknown; so is what ends after them.
  const moment = fc.integer({ min: 2 * 24 * 60, max: 7 * 24 * 60 });
  const scene = fc.constantFrom(...scenes);

  it("is on when the clock on the wall says so", () => {
    fc.assert(
      fc.property(scene, schedule, moment, ({ timeZone, begin, clock }, one, minute) => {
        const now = new Date(begin + minute * MINUTE);
        const minutes = covered(one, clock);
        const [found] = activeFreezes([window(one, timeZone)], now);
        assert.equal(found !== undefined, minutes[minute]);
        const end = minutes.indexOf(false, minute);
        if (found === undefined || end < 0) return;
        assert.deepEqual(found.endsAt, new Date(begin + end * MINUTE));
      }),
      { numRuns: 500 },
    );
  });

  it("as a whole is over when no window is on", () => {
    const several = fc.array(schedule, { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(scene, several, moment, ({ timeZone, begin, clock }, all, minute) => {
        const windows = all.map((one) => window(one, timeZone));
        const minutes = all.map((one) => covered(one, clock));
        const free = clock.findIndex(
          (_, index) => index >= minute && minutes.every((each) => each[index] !== true),
        );
        if (free < 0) return;
        const now = new Date(begin + minute * MINUTE);
        assert.deepEqual(freeAt(windows, now), new Date(begin + free * MINUTE));
      }),
      { numRuns: 200 },
    );
  });

  it("ends later than now, at an instant that it does not cover", () => {
    fc.assert(
      fc.property(
        scene,
        schedule,
        moment,
        fc.nat(59_999),
        ({ timeZone, begin }, one, minute, ms) => {
          const now = new Date(begin + minute * MINUTE + ms);
          const windows = [window(one, timeZone)];
          for (const { endsAt } of activeFreezes(windows, now)) {
            if (endsAt === undefined) continue;
            assert.ok(endsAt > now);
            assert.deepEqual(activeFreezes(windows, endsAt), []);
            assert.equal(activeFreezes(windows, new Date(endsAt.getTime() - 1)).length, 1);
          }
        },
      ),
    );
  });
});
