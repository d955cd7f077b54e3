// What a dashboard of cutoff may be, in Grafana's own types; check_schema.sh compiles the JSON files against it.
import type * as schema from '@grafana/schema/dist/types/raw/dashboard/x/dashboard_types.gen';
import type { GraphFieldConfig } from '@grafana/schema/dist/types/common/common.gen';
import type { Options as BarGauge } from '@grafana/schema/dist/types/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type { Options as Stat } from '@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type { Options as TimeSeries } from '@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type { Prometheus } from '@grafana/prometheus/dist/types/dataquery';

// JSON has an enum's value where TypeScript wants its member.
type Json<T> = unknown extends T
  ? unknown
  : T extends string
    ? `${T}`
    : T extends number
      ? `${T}` extends `${infer N extends number}`
        ? N
        : never
      : T extends object
        ? { [K in keyof T]: Json<T[K]> }
        : T;

// The schema leaves a panel's options and queries open; here they are those of the panel's type.
type PanelOf<Type, Options, Custom> = Omit<schema.Panel, 'type' | 'options' | 'fieldConfig' | 'targets'> & {
  type: Type;
  options: Options;
  targets: Prometheus[];
  fieldConfig: Omit<schema.FieldConfigSource, 'defaults'> & {
    defaults: Omit<schema.FieldConfig, 'custom'> & { custom?: Custom };
  };
};

type Panel =
  | PanelOf<'bargauge', BarGauge, never>
  | PanelOf<'stat', Stat, never>
  | PanelOf<'timeseries', TimeSeries, GraphFieldConfig>
  | schema.RowPanel;

export type Dashboard = Json<Omit<schema.Dashboard, 'panels'> & { panels: Panel[] }>;
