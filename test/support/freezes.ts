import type { FreezeWindow } from "../../release/freeze";

/** From Friday 16:00 until Monday 8:00, but where the clocks change. */
export const weekend: FreezeWindow = {
  name: "weekend",
  schedule: "0 16 * * 5",
  duration: 64 * 3600,
  timeZone: "Europe/Berlin",
};
