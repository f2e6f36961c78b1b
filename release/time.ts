/** As people read it: `2026-11-02 08:00 Europe/Berlin`. */
export function formatTime(at: Date, timeZone = "UTC"): string {
  // Sweden writes dates as ISO 8601 does.
  const format = new Intl.DateTimeFormat("sv-SE", {
    timeZone,
    dateStyle: "short",
    timeStyle: "short",
  });
  return `${format.format(at)} ${timeZone}`;
}

/** Seconds as the stack file has them: `90m`, `4h`, `3d`. */
export function formatDuration(seconds: number): string {
  const units = [
    ["d", 86_400],
    ["h", 3600],
    ["m", 60],
  ] as const;
  const [unit, size] = units.find(([, length]) => seconds % length === 0) ?? ["s", 1];
  return `${seconds / size}${unit}`;
}

/** So many seconds later. */
export function after(at: Date, seconds: number): Date {
  return new Date(at.getTime() + seconds * 1000);
}

/** In seconds, by how much two people's clocks may differ. */
export const CLOCKS_DIFFER = 300;

/** In seconds, by how much an entry's time may differ from the date of its tag, or lie ahead. */
export const STAMPS_DIFFER = 600;
