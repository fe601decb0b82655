/** Neutral output. Each platform renders it with one converter; text is plain, never markup of a platform. */
export type Tone = "neutral" | "progress" | "success" | "warning" | "error";

export interface ViewField {
  label: string;
  value: string;
}

export interface ViewStep {
  label: string;
  state: "planned" | "running" | "done" | "failed" | "skipped";
  /** "12 s", "waiting for the cloud, 40 s". */
  detail?: string;
}

/** A button carries an opaque capability; what it does is looked up when it is pressed. */
export interface ViewButton {
  token: string;
  label: string;
  style: "default" | "primary" | "danger";
  /** `reveal` shows a secret to the presser alone, so the platform opens a private place for it. */
  purpose: "act" | "reveal";
  /** Asked before the press counts. */
  confirm?: { title: string; text: string; yes: string; no: string };
}

/** An address of ours, to be opened in a browser; `url` is never anybody's input. */
export interface ViewLink {
  label: string;
  url: string;
}

export interface View {
  title: string;
  tone: Tone;
  /** Above everything else, one line each: what holds for all that the answer is about (maintenance). */
  banner?: string[];
  text?: string;
  link?: ViewLink;
  fields?: ViewField[];
  table?: { columns: string[]; rows: string[][]; empty: string };
  steps?: ViewStep[];
  /** Small print: who, when, ids. */
  footer?: string;
  buttons?: ViewButton[];
}
