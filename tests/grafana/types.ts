// What a dashboard of ours is, in the words of Grafana's published schema. The case `monitoring::grafana_knows_every_field`
// puts each dashboard beside this file as a literal of type Board, so that the compiler reports every field that is
// missing, unknown or of another type.

import type { Dashboard, DataSourceRef, FieldConfigSource, Panel, TableFieldOptions, GraphFieldConfig } from "@grafana/schema";
import type { Options as Lines } from "./node_modules/@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
import type { Options as Stat } from "./node_modules/@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type { Options as Table } from "./node_modules/@grafana/schema/dist/types/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";

// A value as JSON has it: the text of an enumeration, not its name.
type Json<T> = unknown extends T ? unknown
  : T extends string ? `${T}`
  : T extends (infer U)[] ? Json<U>[]
  : T extends object ? { [K in keyof T]: Json<T[K]> }
  : T;

// A question to Prometheus. The schema leaves questions to the source of data; these are the fields its editor writes.
interface Question {
  refId: string;
  datasource: DataSourceRef;
  expr: string;
  legendFormat: string;
  editorMode: "code" | "builder";
  range: boolean;
  instant: boolean;
  format: "time_series" | "table" | "heatmap";
}

type Of<Type extends string, Options, Custom> =
  Json<Omit<Panel, "type" | "options" | "fieldConfig" | "targets"> & { options: Options; fieldConfig: FieldConfigSource<Custom> }>
  & { type: Type; targets: Question[] };

export type Board = Json<Omit<Dashboard, "panels">> & {
  panels: (Of<"timeseries", Lines, GraphFieldConfig> | Of<"stat", Stat, {}> | Of<"table", Table, TableFieldOptions>)[];
};
