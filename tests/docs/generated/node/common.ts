// What all conversations have in common: who calls, and how they tell of it.
export const service = need("SERVICE");
export const apiKey = need("API_KEY");
export const token = need("TOKEN");
export const host = need("HTY_HOST");

function need(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

export const lastLine = (events: string): string => events.trim().split("\n").at(-1) ?? "";

export interface Told {
  app: string | undefined;
  status: string;
  sent: string;
  read: string;
  tokens: number;
  error: unknown;
  last_event: string;
  page: boolean[];
  file: string;
  completion: string | null | undefined;
  draining: boolean;
  health: string;
  refused: unknown[][];
}

export function tell(hold: () => Promise<Told>): void {
  hold().then(
    (told) => console.log(JSON.stringify(told)),
    (error) => {
      console.error(error);
      process.exitCode = 1;
    },
  );
}
